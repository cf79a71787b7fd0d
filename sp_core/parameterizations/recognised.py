"""Small layers found again in a file: which layers of a checkpoint were factored, and the dense weights they make.

A layer ``conv`` that was factored is saved as ``conv.0.weight``, ``conv.1.weight`` … with the bias in the last. Names
and shapes say which scheme it was; nothing else in the file is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from sp_core.parameterizations import low_rank
from sp_core.parameterizations.schemes import compose

_PART = re.compile(r"(.+)\.(\d)\.(weight|bias)")
_LARGEST = 2**28  # entries of all dense weights together (1 GB): a small file must not ask for much more memory
Plan = dict[str, tuple[str, int]]


def unfactored(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Plan]:
    """The tensors with every factored layer as one dense weight, and its scheme and rank by layer name.

    The plan is empty, and the tensors are those given, where nothing was factored, or where the dense weights would
    have more than 268 million entries (files are untrusted). It can be mistaken about two linear or convolution layers
    that follow each other in a ``Sequential`` with nothing between: ask whether the dense tensors are a known
    architecture.

    >>> import torch
    >>> parts = {"conv.0.weight": torch.ones(2, 3, 3, 1), "conv.1.weight": torch.ones(4, 2, 1, 3)}
    >>> dense, plan = unfactored(parts)
    >>> dense["conv.weight"].shape, plan
    (torch.Size([4, 3, 3, 3]), {'conv': ('separable', 2)})
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _PART.fullmatch(name):
            layers.setdefault(match[1], {})[f"{match[2]}.{match[3]}"] = tensor
    found: dict[str, Tensor] = {}
    plan: Plan = {}
    room = _LARGEST
    for layer, own in layers.items():
        last = len([name for name in own if name.endswith("weight")]) - 1
        kernels = [own.get(f"{index}.weight") for index in range(last + 1)]
        if set(own) - {f"{last}.bias"} != {f"{index}.weight" for index in range(last + 1)}:
            continue
        if any(f"{layer}.{rest}" in tensors for rest in ("weight", "bias")) or not 1 <= last <= 3:
            continue
        made = _dense([kernel for kernel in kernels if kernel is not None], room)
        if made is None:
            continue
        found[f"{layer}.weight"], plan[layer] = made
        room -= made[0].numel()
        if f"{last}.bias" in own:
            found[f"{layer}.bias"] = own[f"{last}.bias"]
    if not plan:
        return dict(tensors), {}
    rest = {name: tensor for name, tensor in tensors.items() if not _of(name, plan)}
    return {**rest, **found}, plan


def _of(name: str, plan: Plan) -> bool:
    match = _PART.fullmatch(name)
    return match is not None and match[1] in plan


def _dense(kernels: list[Tensor], room: int) -> tuple[Tensor, tuple[str, int]] | None:
    """The weight that the kernels make and the scheme and rank whose stages have their shapes; None without any."""
    if len({kernel.ndim for kernel in kernels}) != 1 or kernels[0].ndim not in {2, 4}:
        return None
    if not all(kernel.is_floating_point() and kernel.numel() for kernel in kernels):
        return None
    flat = kernels[0].ndim == 2
    shapes = [tuple(kernel.shape) + ((1, 1) if flat else ()) for kernel in kernels]
    for scheme, rank, shape in _guesses(kernels, shapes):
        stages = low_rank.stages(shape, scheme, rank)
        size = max(shape[0], rank) * math.prod(shape[1:])  # of the result, and of what is on the way to it
        if [stage.shape for stage in stages] == shapes and rank <= low_rank.ranks(shape, scheme) and size <= room:
            parts = [kernel.view(own) for kernel, own in zip(kernels, shapes, strict=True)]
            weight = compose(parts, [stage.groups for stage in stages])
            return (weight[:, :, 0, 0] if flat else weight), (scheme, rank)
    return None


def _guesses(kernels: list[Tensor], shapes: list[tuple[int, ...]]) -> list[tuple[str, int, tuple[int, ...]]]:
    """Scheme, rank and shape of the dense weight that shapes of that number could mean."""
    first, last = shapes[0], shapes[-1]
    if len(shapes) == 2:
        shape = (last[0], first[1], first[2], last[3])
        return [("svd", first[0], (last[0], *first[1:])), ("separable", first[0], shape)]
    if len(shapes) == 3:
        guesses = [("tucker", shapes[1][0], (last[0], first[1], *shapes[1][2:]))]
        if rank := _period(kernels[0]):
            guesses.append(("basis", rank, (last[0], first[0] // rank, first[2], shapes[1][3])))
        return guesses
    return [("cp", first[0], (last[0], first[1], shapes[1][2], shapes[2][3]))]


def _period(kernel: Tensor) -> int:
    """After how many kernels they repeat: the rank of a basis that every channel has; 0 when it has no such shape."""
    if kernel.ndim != 4 or kernel.shape[1] != 1:
        return 0
    count = len(kernel)
    for rank in range(1, count + 1):
        if count % rank == 0 and bool((kernel == kernel[:rank].repeat(count // rank, 1, 1, 1)).all()):
            return rank
    return 0
