"""Layers that are really small: the sequence of cheap convolutions in the place of a large one.

A parametrisation keeps the layer and writes its weight by fewer numbers; here the arithmetic shrinks as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.parameterizations import low_rank
from sp_core.parameterizations.schemes import Stage


def put(module: nn.Module, layer: str, part: nn.Module) -> nn.Module:
    """``module`` with ``part`` in the place of ``layer`` (in place); ``part`` itself when ``layer`` is ``""``."""
    parent, _, name = layer.rpartition(".")
    if not name:
        return part
    setattr(module.get_submodule(parent), name, part)
    return module


def restructured(module: nn.Module, plan: Mapping[str, tuple[str, int]]) -> nn.Module:
    """``module`` (changed in place) with empty small layers of the plan's schemes and ranks, to be filled.

    ``load_state_dict`` then takes what was saved of a network compressed by the same plan.

    >>> net = restructured(nn.Sequential(nn.Conv2d(3, 4, 3)), {"0": ("separable", 2)})
    >>> sorted(net.state_dict())
    ['0.0.weight', '0.1.bias', '0.1.weight']
    """
    for layer, (scheme, rank) in plan.items():
        own: Any = module.get_submodule(layer)
        if not isinstance(own, (nn.Conv2d, nn.Linear)) or scheme not in low_rank.NAMES:
            raise SpError(f"{layer} is a {type(own).__name__}; it cannot be made of small layers by '{scheme}'.")
        shape = tuple(own.weight.shape)
        stages = low_rank.stages(shape, scheme, low_rank.chosen_rank(shape, scheme, rank))
        empty = [torch.zeros(stage.shape, device=own.weight.device) for stage in stages]
        module = put(module, layer, small_layers(own, empty, stages))
    return module


def small_layers(module: Any, kernels: list[Tensor], stages: list[Stage]) -> nn.Sequential:
    """The small layers in the original's stride, padding, dilation and padding mode; the bias goes to the last.

    >>> [stage] = [Stage("point", (2, 3, 1, 1))]
    >>> small_layers(nn.Conv2d(3, 2, 1), [torch.ones(2, 3, 1, 1)], [stage])[0].bias.shape
    torch.Size([2])
    """
    parts: list[nn.Module] = []
    bias = module.bias
    for index, (kernel, stage) in enumerate(zip(kernels, stages, strict=True)):
        own = bias is not None and index == len(kernels) - 1
        part: Any
        if isinstance(module, nn.Linear):
            kernel = kernel[:, :, 0, 0]
            part = nn.Linear(kernel.shape[1], kernel.shape[0], bias=own)
        else:
            part = _conv(module, kernel, stage, own)
        part.weight = nn.Parameter(
            kernel.to(module.weight.device, module.weight.dtype).contiguous(), requires_grad=False
        )
        if own:
            part.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        parts.append(part)
    return nn.Sequential(*parts).eval()


def _conv(module: Any, kernel: Tensor, stage: Stage, bias: bool) -> nn.Conv2d:
    down, across = stage.how in {"full", "column"}, stage.how in {"full", "row"}

    def pick(values: tuple[int, int], other: int) -> tuple[int, int]:
        return (values[0] if down else other, values[1] if across else other)

    return nn.Conv2d(
        kernel.shape[1] * stage.groups,
        kernel.shape[0],
        (kernel.shape[2], kernel.shape[3]),
        stride=pick(module.stride, 1),
        padding=module.padding if isinstance(module.padding, str) else pick(module.padding, 0),
        dilation=pick(module.dilation, 1),
        groups=stage.groups,
        bias=bias,
        padding_mode=module.padding_mode,
    )
