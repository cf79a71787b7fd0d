"""Ioannou's composite layers: horizontal, vertical and full filters side by side on the same input, then a 1 × 1 join.

Ioannou, Robertson, Shotton, Cipolla and Criminisi, "Training CNNs with low-rank filters for efficient image
classification", ICLR 2016, arXiv:1511.06744. ``lr``: half 1×k, half k×1 filters, no join. ``lr-join``: the same and a
1×1 after them, with nothing between. ``lr-join-wfull``: 3/8 1×k, 3/8 k×1 and 1/4 k×k filters, joined. What a joined
layer of the first kind computes is a convolution with *crosses*: its corners are exactly zero. (Where there is a ReLU
between, as after ``lr`` in the paper's networks, that is not part of the weight.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.parameterizations.base import Parameterization

# Eighths of the filters that are 1×k, k×1 and k×k, and whether a 1×1 joins them.
KINDS = {"lr": (4, 4, 0, False), "lr-join": (4, 4, 0, True), "lr-join-wfull": (3, 3, 2, True)}
_SWEEPS = 20


def composite_std(filters: Sequence[tuple[int, int, int]]) -> float:
    """Standard deviation that keeps the variance of gradients: ``√(2 / Σ_g w_g h_g d_g)`` (thesis, eq. "reluinit").

    Each group is ``(w, h, d)``: kernel width, height and how many filters.

    >>> composite_std([(3, 1, 32), (1, 3, 32)]) == (2 / 192) ** 0.5
    True
    """
    return math.sqrt(2 / sum(w * h * d for w, h, d in filters))


class Bases(Parameterization):
    """``Ŵ[o] = Σ_k A[o, k] pad(basis_k)``: bases of 1×k, k×1 and k×k filters (the non-empty ones), then the join A.

    Without a join the bases are the filters themselves, in that order. ``filters`` is how many bases there are (by
    default one for each output). Parts: 1×k, k×1, k×k bases, A ``[out, filters]``. The nearest weight without a join
    is what the crosses cut out; with one it is found by alternating truncated SVDs, exact when each kind has at least
    as many bases as its matrix has rank, else a local minimum.

    >>> Bases((8, 4, 3, 3), "lr-join").parts
    ((4, 4, 1, 3), (4, 4, 3, 1), (8, 8, 1, 1))
    """

    def __init__(self, shape: tuple[int, ...], kind: str, filters: int | None = None) -> None:
        out, inputs, high, wide = shape
        across, down, _, self.joined = KINDS[kind]
        count = filters if filters is not None and self.joined else out
        if count < 2:
            raise SpError(f"A layer of {kind} has at least 2 bases, one across and one down; got {count}.")
        rows, columns = count * across // 8, count * down // 8
        sizes = ((rows, (1, wide)), (columns, (high, 1)), (count - rows - columns, (high, wide)))
        self.groups = tuple((number, inputs, *kernel) for number, kernel in sizes if number)
        super().__init__(shape, (*self.groups, *(((out, count, 1, 1),) if self.joined else ())))
        self.kind = kind

    def forward(self, *parts: Tensor) -> Tensor:
        """Bases and join to the weight."""
        bases = torch.cat([self._padded(part) for part in parts[: len(self.groups)]])
        return torch.einsum("ok,kchw->ochw", parts[-1][:, :, 0, 0], bases) if self.joined else bases

    def _padded(self, basis: Tensor) -> Tensor:
        """A basis in the middle of the k×k kernel."""
        high, wide = (whole - own for whole, own in zip(self.shape[2:], basis.shape[2:], strict=True))
        return nn.functional.pad(basis, (wide // 2, wide - wide // 2, high // 2, high - high // 2))

    def _cut(self, weight: Tensor, group: tuple[int, ...]) -> Tensor:
        """What of ``weight`` a basis of that shape can reach: the opposite of :meth:`_padded`."""
        top, left = ((whole - own) // 2 for whole, own in zip(self.shape[2:], group[2:], strict=True))
        return weight[:, :, top : top + group[2], left : left + group[3]]

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The nearest bases, and their join."""
        if not self.joined:
            ends = torch.tensor([group[0] for group in self.groups]).cumsum(0).tolist()
            return tuple(self._cut(weight[end - g[0] : end], g) for end, g in zip(ends, self.groups, strict=True))
        made = [torch.zeros_like(weight) for _ in self.groups]
        found: list[tuple[Tensor, Tensor]] = [(weight, weight)] * len(self.groups)
        last = math.inf
        for _ in range(_SWEEPS):
            for index, group in enumerate(self.groups):
                rest = weight - sum(own for place, own in enumerate(made) if place != index)
                join, basis = _truncated(self._cut(rest, group).flatten(1), group[0])
                found[index] = (join, basis.view(group))
                made[index] = self._padded((join @ basis).view(-1, *group[1:]))
            left = float((weight - sum(made)).square().sum())
            if last - left <= 1e-12 * float(weight.square().sum()):
                break
            last = left
        return (*(basis for _, basis in found), torch.cat([join for join, _ in found], 1)[:, :, None, None])

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Normal numbers: bases of the paper's common standard deviation, the join that of its own outputs."""
        std = composite_std([(group[3], group[2], group[0]) for group in self.groups])
        bases = [std * torch.randn(group, dtype=weight.dtype, device=weight.device) for group in self.groups]
        if not self.joined:
            return tuple(bases)
        join = torch.randn(self.parts[-1], dtype=weight.dtype, device=weight.device)
        return (*bases, composite_std([(1, 1, self.shape[0])]) * join)


def _truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``[n, rank]`` and ``[rank, m]``, whose product is the nearest to ``matrix`` ``[n, m]``; zeros beyond its rank."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    left, right = left[:, :rank] * values[:rank].sqrt(), values[:rank].sqrt()[:, None] * right[:rank]
    missing = max(0, rank - len(values))
    return nn.functional.pad(left, (0, missing)), nn.functional.pad(right, (0, 0, 0, missing))


def obstacle(shape: tuple[int, ...]) -> str | None:
    """Why a weight of this shape has no such form; None when it has.

    >>> obstacle((8, 4, 1, 1)), obstacle((8, 4, 3, 3))
    ('it has no k×k kernels', None)
    """
    if len(shape) != 4 or min(shape[2:]) == 1:
        return "it has no k×k kernels"
    if shape[2] % 2 == 0 or shape[3] % 2 == 0:
        return f"an even kernel {shape[2]}×{shape[3]} has no middle"
    return None if shape[0] > 1 else "it has one filter, which cannot be halved"
