"""What was done to the weights in a file, from names and shapes alone: small layers, and parametrisations.

A layer ``conv`` that was factored is saved as ``conv.0.weight``, ``conv.1.weight`` … with the bias in the last; one
whose weight is parametrised as ``conv.parametrizations.weight.original0``, ``…original1`` …: its free parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor

from sp_core.errors import SpError
from sp_core.parameterizations import low_rank, registry
from sp_core.parameterizations.schemes import compose

_PART = re.compile(r"(.+)\.(\d)\.(weight|bias)")
_LARGEST = 2**28  # entries of all dense weights together (1 GB): a small file must not ask for much more memory
_FREE = re.compile(r"(.+)\.parametrizations\.weight\.original(\d)")
Plan = dict[str, tuple[str, int]]
Shape = tuple[int, ...]
Way = tuple[str, tuple[tuple[str, int], ...]]  # a parametrisation's name and its options
_SAME = {"root", "tree"}  # of one layer the same as "column"
_LAST = {"soft-l1"}  # of several that fit: the one whose price is in the loss and leaves no trace in the network


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


def free_parts(shapes: Mapping[str, Shape]) -> tuple[dict[str, tuple[Shape, ...]], dict[str, Shape]]:
    """Layer name to the shapes of its weight's free parts, in order; and the names and shapes of all else.

    >>> layers, rest = free_parts({"conv.parametrizations.weight.original0": (10, 3, 3), "conv.bias": (4,)})
    >>> layers, list(rest)
    ({'conv': ((10, 3, 3),)}, ['conv.bias'])
    """
    found: dict[str, dict[int, Shape]] = {}
    for name, shape in shapes.items():
        if match := _FREE.fullmatch(name):
            found.setdefault(match[1], {})[int(match[2])] = shape
    whole = {layer: own for layer, own in found.items() if sorted(own) == list(range(len(own)))}
    layers = {layer: tuple(own[index] for index in range(len(own))) for layer, own in whole.items()}
    rest = {name: own for name, own in shapes.items() if (m := _FREE.fullmatch(name)) is None or m[1] not in layers}
    return layers, rest


@lru_cache(maxsize=4096)
def ways(shape: Shape, parts: tuple[Shape, ...]) -> tuple[Way, ...]:
    """Every parametrisation that writes a weight of ``shape`` by free parts of these shapes, with its options.

    Where there are several the file cannot tell which: triangular and LDL forms, for one, keep as many numbers.

    >>> ways((4, 4, 3, 3), ((4, 2, 3, 3), (2, 3, 3)))
    (('eigen', (('rank', 2),)),)
    >>> [name for name, _ in ways((4, 4, 3, 3), ((10, 3, 3),))]
    ['triangular', 'ldl']
    """
    found: list[Way] = []
    for name in sorted(registry.names(), key=lambda name: name in _LAST):
        own = registry.entry(name)
        if name in _SAME or not 2 <= len(shape) <= 5:
            continue
        option = next(iter(own.options), "")
        for value in _values(option, shape, parts):
            options: dict[str, Any] = {option: value} if option else {}
            try:
                if own.obstacle(shape, 0, **options) is None and own.make(shape, 0, **options).parts == parts:
                    found.append((name, tuple(options.items())))
                    break
            except SpError:  # no such rank
                continue
    return tuple(found)


def _values(option: str, shape: Shape, parts: tuple[Shape, ...]) -> list[int]:
    """What the option of a parametrisation may have been: a rank and a count of bases are the size of some part."""
    if option == "groups":
        inside = parts[0][1] if len(parts[0]) > 1 else 0
        return [shape[1] // inside] if inside and shape[1] > inside else []
    return sorted({size for part in parts for size in part}) if option else [0]
