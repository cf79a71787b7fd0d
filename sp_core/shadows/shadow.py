"""A shadow: for each element of a tensor, the box of image pixels that it can depend on.

A box is four integers; they are kept as ``(lo_y, -hi_y, lo_x, -hi_x)``, so that the union of two boxes is one minimum.
Each is an int32 tensor with as many dimensions as the tensor it belongs to, and with size 1 along every dimension in
which it is constant: the rows of a plain convolution vary along the height only, so a map of 64 × 112 × 112 elements
has shadows of 112 numbers. A box of nothing (a constant, a unit that lies wholly in the padding) is ``EMPTY``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = 1 << 28
# Above this many elements a constant dimension is never written out for the sake of units that see nothing.
FINE = 1 << 21
# Above this many elements a rule gives up exactness and takes the union.
LIMIT = 1 << 22

MISALIGNED = "misaligned: branches that meet here or before are centred on different pixels"
HELD = "one factor a channel for the whole map (a gate, the statistics of a normalisation) is held constant"


@dataclass(frozen=True)
class Shadow:
    """The boxes of one tensor.

    Attributes:
        parts: lo_y, -hi_y, lo_x, -hi_x: first and last pixel row and column, both inclusive, the last ones negated.
        notes: what was not followed exactly on the way, as sentences; empty when everything was.
    """

    parts: tuple[Tensor, ...]
    notes: frozenset[str] = frozenset()

    def map(self, change: Callable[[Tensor], Tensor]) -> Shadow:
        """Every part changed in the same way."""
        return Shadow(tuple(change(part) for part in self.parts), self.notes)

    def noting(self, *notes: str) -> Shadow:
        """With more ``notes``."""
        return Shadow(self.parts, self.notes | set(notes))

    @property
    def is_flat(self) -> bool:
        """Whether no part varies along the last two dimensions: every position sees the same."""
        return all(part.shape[-2:].numel() == 1 for part in self.parts)


def of_image(height: int, width: int) -> Shadow:
    """The shadow of an image ``[n, c, height, width]``: each pixel sees itself."""
    rows = torch.arange(height, dtype=torch.int32).view(1, 1, -1, 1)
    columns = torch.arange(width, dtype=torch.int32).view(1, 1, 1, -1)
    return Shadow((rows, -rows, columns, -columns))


def nothing(ndim: int) -> Shadow:
    """The shadow of a constant."""
    return Shadow((torch.full((1,) * ndim, EMPTY, dtype=torch.int32),) * 4)


def align(part: Tensor, ndim: int) -> Tensor:
    """``part`` with leading dimensions of size 1 put before it, as broadcasting does."""
    return part if part.ndim >= ndim else part.view((1,) * (ndim - part.ndim) + part.shape)


def union(shadows: Iterable[Shadow], ndim: int) -> Shadow:
    """Elementwise union of ``shadows``, broadcast to ``ndim`` dimensions."""
    shadows = list(shadows)
    first = shadows[0]
    parts = [align(part, ndim) for part in first.parts]
    for other in shadows[1:]:
        if other.parts is not first.parts:
            parts = [torch.minimum(mine, align(its, ndim)) for mine, its in zip(parts, other.parts, strict=True)]
    return Shadow(tuple(parts), frozenset().union(*(shadow.notes for shadow in shadows)))


def reduce(part: Tensor, dims: Sequence[int]) -> Tensor:
    """The union over ``dims``, which stay with size 1."""
    varying = [dim for dim in dims if part.shape[dim] > 1]
    return part.amin(varying, keepdim=True) if varying else part


def whole(shadow: Shadow, ndim: int) -> Shadow:
    """The union over all elements, as a shadow of ``ndim`` dimensions."""
    return shadow.map(lambda part: part.amin().view((1,) * ndim))


def misaligned(shadows: Sequence[Shadow], ndim: int, extent: Sequence[int]) -> bool:
    """Whether a unit in the union of ``shadows`` sees boxes of different centres (Araujo, Norris & Sim 2019).

    Only boxes that an image of ``extent`` pixels does not clip are looked at; where two aligned branches met before,
    their union has the centre of both, so that comparing boxes compares all paths.
    """
    for axis, size in enumerate(extent):
        centres, inside = [], []
        for shadow in shadows:
            low, high = (align(part, ndim) for part in shadow.parts[2 * axis : 2 * axis + 2])
            centres.append(low - high)  # twice the centre, for `high` is negated
            inside.append((low > 0) & (low < EMPTY) & (high > 1 - size))
        for centre, seen in zip(centres[1:], inside[1:], strict=True):
            if bool(((centre != centres[0]) & seen & inside[0]).any()):
                return True
    return False


def mixes_misaligned(shadow: Shadow, groups: int, extent: Sequence[int]) -> bool:
    """Whether channels (dimension 1) of one group have boxes of different centres, seen from a unit in the middle."""
    for axis, size in enumerate(extent):
        low, high = shadow.parts[2 * axis : 2 * axis + 2]
        if max(low.shape[1], high.shape[1]) == 1:
            continue
        for dim in range(2, low.ndim):
            low, high = (part.narrow(dim, part.shape[dim] // 2, 1) for part in (low, high))
        centre, seen = low - high, (low > 0) & (low < EMPTY) & (high > 1 - size)
        least = torch.where(seen, centre, EMPTY).unflatten(1, (groups, -1)).amin(2)
        if bool((torch.where(seen, centre, -EMPTY).unflatten(1, (groups, -1)).amax(2) > least).any()):
            return True
    return False


def take(part: Tensor, dim: int, index: Tensor, size: int) -> Tensor:
    """Element ``index[u]`` of dimension ``dim`` (of ``size`` elements) for each u; -1 stands for nothing."""
    outside = index < 0
    if part.shape[dim] == 1:
        shape = list(part.shape)
        shape[dim] = len(index)
        if not bool(outside.any()) or torch.Size(shape).numel() > FINE:
            return part
        part = widen(part, dim, size)
    taken = part.index_select(dim, index.clamp(min=0))
    if bool(outside.any()):
        shape = [1] * part.ndim
        shape[dim] = len(index)
        taken = taken.masked_fill(outside.view(shape), EMPTY)
    return taken


def widen(part: Tensor, dim: int, size: int) -> Tensor:
    """``part`` written out along ``dim``."""
    shape = list(part.shape)
    shape[dim] = size
    return part.expand(shape)


def shrink(part: Tensor) -> Tensor:
    """``part`` with size 1 along each dimension in which all its elements turn out equal."""
    if part.numel() == max(part.shape, default=1):
        return part  # at most one dimension varies: nothing to win that is worth looking for
    for dim, size in enumerate(part.shape):
        first = part.narrow(dim, 0, 1)
        if size > 1 and bool((part == first).all()):
            part = first
    return part


def regroup(part: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor | None:
    """``part`` of a tensor of shape ``before`` for its reshape ``after``; None when it would have too many elements.

    Dimensions are matched in groups of equal product. A group in which the part is constant stays constant.
    """
    shape: list[int] = []
    grown: list[int] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = i, j
        mine = before[i] if i < len(before) else 1
        its = after[j] if j < len(after) else 1
        i, j = i + (i < len(before)), j + (j < len(after))
        while mine != its:
            if mine < its:
                mine, i = mine * before[i], i + 1
            else:
                its, j = its * after[j], j + 1
        group = part.shape[left:i]
        constant = group.numel() == 1
        grown += [1] * (i - left) if constant else list(before[left:i])
        shape += [1] * (j - right) if constant else list(after[right:j])
    if torch.Size(grown).numel() > LIMIT:
        return None
    return part.expand(grown).reshape(shape)
