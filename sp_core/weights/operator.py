"""Which matrix a convolution is: three readings, each with its own singular values.

``"flat"``: ``[out, in / groups · k · k]``, what patches are multiplied with; low-rank schemes cut this one.

``"positions"``: k·k matrices ``[out, in / groups]``, one a kernel position (as WeightWatcher reads it).

``"operator"``: the convolution itself, as a linear map of whole maps ``[in, h, w]`` to ``[out, h / s, w / s]``: what it
can do to the norm of a signal and of a gradient. With *circular* padding the Fourier transform makes it block-diagonal,
one block ``[out, in]`` a frequency (Sedghi, Gupta and Long, "The Singular Values of Convolutional Layers", ICLR 2019);
with a stride s the s·s frequencies that fall on one another stand side by side in a block, divided by s. Real layers
pad with zeros, which changes values a little, the less the larger the maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sp_core.errors import NeedsGraph, SpError
from sp_core.network import Network
from sp_core.weights.matrices import Weight

MATRICES = ("flat", "positions", "operator")
CHUNK = 2**22  # complex numbers at a time: 64 MB


@dataclass(frozen=True)
class Place:
    """How a convolution is laid over its maps.

    Attributes:
        outputs: size of the smaller maps, ``(h, w)``; those on the other side are ``stride`` times as large.
        stride, dilation: one number an axis.
        groups: how many groups the channels are divided into.
        transposed: whether the layer goes from the smaller maps to the larger; its values are its adjoint's.
    """

    outputs: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def maps(self) -> tuple[int, ...]:
        """Size of the larger maps, on which the padding is circular."""
        return tuple(out * step for out, step in zip(self.outputs, self.stride, strict=True))

    def at_most(self, side: int | None) -> Place:
        """The same convolution on larger maps of at most about ``side`` pixels a side, but at least one output."""
        if side is None:
            return self
        outputs = tuple(min(o, max(1, side // s)) for o, s in zip(self.outputs, self.stride, strict=True))
        return Place(outputs, self.stride, self.dilation, self.groups, self.transposed)


def places(net: Network) -> dict[str, Place]:
    """Where each convolution that runs lies, by its layer; of one that runs twice, the first time.

    Raises:
        SpError: only the weights are known, so the sizes of the maps are not.
    """
    if not net.has_graph:
        raise NeedsGraph(
            f"Only the weights of {net.name} are known, so the sizes of its maps are not; choose 'flat' or 'positions'."
        )
    found: dict[str, Place] = {}
    for layer in net.layers:
        module: Any = net.module.get_submodule(layer.module)
        kernel: Any = getattr(module, "kernel_size", None)
        if layer.call > 1 or not isinstance(getattr(module, "weight", None), Tensor) or not isinstance(kernel, tuple):
            continue
        if module.weight.ndim != len(kernel) + 2 or len(layer.output_shape) != len(kernel) + 1:
            continue
        transposed, outputs = bool(getattr(module, "transposed", False)), tuple(layer.output_shape[1:])
        if transposed:
            outputs = tuple(-(-out // step) for out, step in zip(outputs, module.stride, strict=True))
        found[layer.module] = Place(outputs, tuple(module.stride), tuple(module.dilation), module.groups, transposed)
    return found


def operator_size(row: Weight, place: Place) -> tuple[int, int]:
    """Rows and columns of the operator: the numbers in all output maps, and in all input maps."""
    kernel = row.tensor.transpose(0, 1) if place.transposed else row.tensor
    small = kernel.shape[0] * math.prod(place.outputs)
    large = kernel.shape[1] * place.groups * math.prod(place.maps)
    return (large, small) if place.transposed else (small, large)


def operator_blocks(row: Weight, place: Place) -> Iterator[tuple[Tensor, Tensor]]:
    """The diagonal blocks ``[b, m, n]``, complex128, of the circular operator, in pieces, and how often each counts.

    A real kernel has conjugate blocks at opposite frequencies, so only half of them are made and most count twice.
    """
    kernel = row.tensor.transpose(0, 1) if place.transposed else row.tensor
    spatial = kernel.ndim - 2
    if spatial != len(place.outputs):
        raise SpError(f"{row.name} has {spatial} axes of space, its maps have {len(place.outputs)}.")
    waves = [
        _waves(taps, out, step, gap, half=axis == spatial - 1, device=kernel.device)
        for axis, (taps, out, step, gap) in enumerate(
            zip(kernel.shape[2:], place.outputs, place.stride, place.dilation, strict=True)
        )
    ]
    # [g, o, i, k1, k2, …], the last axis first: each turns taps into frequencies u and what falls on them r.
    part = kernel.detach().to(torch.complex128).unflatten(0, (place.groups, -1)) / math.sqrt(math.prod(place.stride))
    for axis in range(spatial - 1, 0, -1):
        part = torch.tensordot(part, waves[axis], dims=([3 + axis], [0]))  # […, u, r] go to the end
    order = list(range(spatial - 1, 0, -1))  # the axes whose u, r now stand at the end, in this order
    times = _times([len(wave[0]) for wave in waves], place)
    first = waves[0]
    some = max(1, CHUNK // max(1, part.numel() // kernel.shape[2] * first.shape[2]))
    for start in range(0, first.shape[1], some):
        piece = torch.tensordot(part, first[:, start : start + some], dims=([3], [0]))
        # [g, o, i, u_d, r_d, …, u_2, r_2, u_1, r_1] to [u_1, …, u_d, g, o, i, r_1, …, r_d]
        at = {axis: 3 + 2 * index for index, axis in enumerate([*order, 0])}
        axes = [at[axis] for axis in range(spatial)]
        piece = piece.permute(*axes, 0, 1, 2, *(axis + 1 for axis in axes))
        blocks = piece.reshape(-1, kernel.shape[0] // place.groups, kernel.shape[1] * math.prod(place.stride))
        yield blocks, times[start : start + some].reshape(-1)


def _waves(taps: int, out: int, step: int, gap: int, half: bool, device: torch.device) -> Tensor:
    """``[taps, u, r]``: tap a at frequency ``u + r · out`` of ``out · step``; of the last axis only half the u."""
    count = out // 2 + 1 if half else out
    frequency = torch.arange(count, device=device)[:, None] + out * torch.arange(step, device=device)  # [u, r]
    turns = (gap * torch.arange(taps, device=device)[:, None, None] * frequency) % (out * step)  # exact integers
    angle = turns.double() * (-2 * math.pi / (out * step))
    return torch.complex(angle.cos(), angle.sin())


def _times(counts: list[int], place: Place) -> Tensor:
    """How often each block counts, ``[u_1, the others and the groups]``: twice but at frequency 0 and the highest."""
    out = place.outputs[-1]
    last = torch.tensor([1 if u == 0 or 2 * u == out else 2 for u in range(counts[-1])])
    every = last.expand(*counts)[..., None].expand(*counts, place.groups)
    return every.reshape(counts[0], -1)
