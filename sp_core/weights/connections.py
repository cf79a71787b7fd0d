"""Every connection of a linear layer as one large matrix: what convolution and filter groups leave of a full one.

Ioannou's figure of connection weights: a fully connected layer has a full matrix, a locally connected one a banded one,
a convolution a banded one whose bands are equal (doubly blocked Toeplitz), a grouped convolution blocks of such bands.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError

_LARGEST = 4_000_000  # entries


def connections(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """The matrix ``[outputs, inputs]`` that ``module`` applies to an input of ``input_shape`` ``(c, h, w)``, flattened.

    Entry ``(o, i)`` is the weight with which output number o reads input number i, both counted channel by channel, row
    by row. The module must be linear but for a bias (a convolution, a linear layer, a pooling by means); the bias is
    left out.

    Raises:
        SpError: the matrix would have more than 4 million entries, or the module is not linear.

    >>> connections(nn.Conv2d(1, 1, 3, padding=1), (1, 4, 4)).count_nonzero(1).tolist()[:5]
    [4, 6, 6, 4, 6]
    """
    parameter: Any = next(module.parameters(), torch.empty(0))
    count = math.prod(input_shape)
    with torch.no_grad():
        nothing = module(parameter.new_zeros(1, *input_shape))
        if count * nothing.numel() > _LARGEST:
            raise SpError(f"The matrix would be {nothing.numel()}×{count}; take a smaller map or fewer channels.")
        each = torch.eye(count, dtype=parameter.dtype, device=parameter.device).view(count, *input_shape)
        matrix = (module(each) - nothing).flatten(1).mT
        trial = torch.linspace(-1, 1, count, dtype=parameter.dtype, device=parameter.device)
        made = (module(trial.view(1, *input_shape)) - nothing).flatten()
    if not torch.allclose(matrix @ trial, made, rtol=1e-3, atol=1e-3 * float(made.abs().max() + 1e-12)):
        raise SpError(f"A {type(module).__name__} is not linear, so no matrix says what it does.")
    return matrix
