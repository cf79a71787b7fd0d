"""Every connection of a linear layer as one large matrix: what convolution and filter groups leave of a full one.

Ioannou's figure of connection weights: a fully connected layer has a full matrix, a locally connected one a banded one,
a convolution a banded one whose bands are equal (doubly blocked Toeplitz), a grouped convolution blocks of such bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Map:
    """The connections of one structure.

    Attributes:
        name: ``"fully connected"``, ``"local"``, ``"convolutional"`` or ``"4 groups"``.
        matrix: ``[outputs, inputs]``, as :func:`connections` has it.
        connections: how many entries can be other than zero.
        numbers: how many of them are free: a convolution uses each many times.
        drawn: whether the values are random, for the layer itself has no such numbers.
    """

    name: str
    matrix: Tensor
    connections: int
    numbers: int
    drawn: bool


def maps(weight: Tensor, size: tuple[int, int], groups: int = 2) -> tuple[Map, ...]:
    """A convolution's weight ``[out, in, h, w]`` and what more and less structure would make of it, on one image.

    Fully connected: every output pixel reads every input pixel. Local: those under the kernel, each by a number of its
    own. Convolutional: the weight itself, with stride 1 and zeros around the image of ``size`` (h, w) pixels. Groups:
    the weight's blocks. The first two have random values (seed 0) of the weight's root mean square.

    Raises:
        SpError: the channels cannot be divided so, the kernel is even, or the matrix is too large.

    >>> [(row.name, row.connections, row.numbers) for row in maps(torch.ones(2, 2, 3, 3), (3, 4))]
    [('fully connected', 576, 576), ('local', 280, 280), ('convolutional', 280, 36), ('2 groups', 140, 18)]
    """
    weight = weight.detach().cpu().float()
    out, inputs, *kernel = weight.shape
    if len(kernel) != 2 or any(side % 2 == 0 for side in kernel):
        raise SpError(f"A kernel of {'×'.join(map(str, kernel)) or 'one number'} has no middle; choose another layer.")
    if groups < 1 or out % groups or inputs % groups:
        raise SpError(f"{out} outputs and {inputs} inputs cannot both be divided into {groups} groups.")
    shape = (inputs, *size)
    reached = connections(_conv(torch.ones_like(weight)), shape) != 0
    blocks = torch.block_diag(*[torch.ones(out // groups, inputs // groups)] * groups)[:, :, None, None]
    kept = connections(_conv(torch.ones_like(weight) * blocks), shape) != 0
    draw = torch.Generator().manual_seed(0)
    noise = float(weight.square().mean().sqrt()) * torch.randn(reached.shape, generator=draw)
    seen, own = int(reached.sum()), weight.numel()
    return (
        Map("fully connected", noise, reached.numel(), reached.numel(), True),
        Map("local", noise * reached, seen, seen, True),
        Map("convolutional", connections(_conv(weight), shape), seen, own, False),
        Map(f"{groups} groups", connections(_conv(weight * blocks), shape), int(kept.sum()), own // groups, False),
    )


def _conv(weight: Tensor) -> nn.Module:
    out, inputs, high, wide = weight.shape
    layer = nn.Conv2d(inputs, out, (high, wide), padding=(high // 2, wide // 2), bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
