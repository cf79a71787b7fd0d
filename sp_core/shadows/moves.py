"""Operations that only move elements: the same move of the shadow.

A rule takes the call and the shadow of its first argument, because a view is moved again after what it looks at has
been written to. It returns one shadow, or a list for an operation with several outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sp_core.shadows.call import known
from sp_core.shadows.shadow import LIMIT, Shadow, align, nothing, regroup, take, union, whole, widen

COARSE = "a reshape mixed so many positions that its union was taken"


def same(_call: Any, shadow: Shadow) -> Shadow:
    """The elements stay where they are."""
    return shadow


def reshape(call: Any, shadow: Shadow) -> Shadow:
    """view, reshape, flatten, unflatten: a group of dimensions becomes another of the same product."""
    before, after = call.shapes[0], tuple(call.out.shape)
    parts = [regroup(align(part, len(before)), before, after) for part in shadow.parts]
    if any(part is None for part in parts):
        return whole(shadow, len(after)).noting(COARSE)
    return Shadow(tuple(parts), shadow.notes)  # type: ignore[arg-type]


def permute(call: Any, shadow: Shadow) -> Shadow:
    """Dimensions in another order."""
    dims = call.args[1]
    return shadow.map(lambda part: part.permute(dims))


def transpose(call: Any, shadow: Shadow) -> Shadow:
    """Two dimensions swapped; ``t`` swaps the first two."""
    first, second = call.args[1:3] if len(call.args) > 2 else (0, 1)
    return shadow if len(call.shapes[0]) < 2 else shadow.map(lambda part: part.transpose(first, second))


def expand(call: Any, shadow: Shadow) -> Shadow:
    """Broadcasting adds nothing to a shadow but leading dimensions."""
    return shadow.map(lambda part: align(part, call.out.ndim))


def unsqueeze(call: Any, shadow: Shadow) -> Shadow:
    """One more dimension."""
    return shadow.map(lambda part: part.unsqueeze(call.args[1]))


def squeeze(call: Any, shadow: Shadow) -> Shadow:
    """Dimensions of size 1 leave."""
    shape = call.shapes[0]
    dims = call.args[1] if len(call.args) > 1 else range(len(shape))
    dims = [dims] if isinstance(dims, int) else list(dims)
    gone = tuple(dim % len(shape) for dim in dims if shape[dim] == 1)
    return shadow.map(lambda part: part.squeeze(gone)) if gone else shadow


def _cut(part: Tensor, dim: int, start: int, length: int, step: int = 1) -> Tensor:
    if part.shape[dim] == 1:
        return part
    index = [slice(None)] * part.ndim
    index[dim] = slice(start, start + length, step)
    return part[tuple(index)]


def _piece(shadow: Shadow, dim: int, start: int, length: int) -> Shadow:
    return shadow.map(lambda part: _cut(part, dim, start, length))


def cut(call: Any, shadow: Shadow) -> Shadow:
    """Slice and narrow: a range along one dimension."""
    dim = call.arg(1, "dim", 0)
    size = call.shapes[0][dim]
    if call.name == "narrow":
        start, stop, step = call.args[2], call.args[2] + call.args[3], 1
    else:
        start, stop, step = slice(call.arg(2, "start", None), call.arg(3, "end", None), call.arg(4, "step", 1)).indices(
            size
        )
    return shadow.map(lambda part: _cut(part, dim, start, stop - start, step))


def select(call: Any, shadow: Shadow) -> Shadow:
    """One index along a dimension, which leaves."""
    dim, index = call.args[1], call.args[2] % call.shapes[0][call.args[1]]
    return shadow.map(lambda part: part.select(dim, index if part.shape[dim] > 1 else 0))


def split(call: Any, shadow: Shadow) -> list[Shadow]:
    """split, chunk, split_with_sizes: consecutive ranges along a dimension."""
    dim = call.arg(2, "dim", 0)
    start, found = 0, []
    for piece in call.out:
        length = piece.shape[dim]
        found.append(_piece(shadow, dim, start, length))
        start += length
    return found


def unbind(call: Any, shadow: Shadow) -> list[Shadow]:
    """Every index along a dimension, one tensor each."""
    dim = call.arg(1, "dim", 0)
    return [_piece(shadow, dim, k, 1).map(lambda part: part.squeeze(dim)) for k in range(len(call.out))]


def by_index(make: Callable[[Any, int, int], Tensor]) -> Callable[[Any, Shadow], Shadow]:
    """The rule of a move that permutes each of some dimensions by itself: ``make(call, which, size)`` is the index."""

    def rule(call: Any, shadow: Shadow) -> Shadow:
        dims = call.args[-1] if call.name == "flip" else call.args[2]
        for which, dim in enumerate(dims):
            size = call.shapes[0][dim]
            shadow = _taken(shadow, dim % len(call.shapes[0]), make(call, which, size), size)
        return shadow

    return rule


def _taken(shadow: Shadow, dim: int, index: Tensor, size: int) -> Shadow:
    return shadow.map(lambda part: take(part, dim, index, size))


def _rolled(call: Any, which: int, size: int) -> Tensor:
    return (torch.arange(size) - call.args[1][which]) % size


roll = by_index(_rolled)
flip = by_index(lambda _call, _which, size: torch.arange(size - 1, -1, -1))


def shuffle(call: Any, shadow: Shadow) -> Shadow:
    """pixel_shuffle, pixel_unshuffle, channel_shuffle, unfold, index with known indices …: the same move, written out.

    Each part is written out in full and the operation itself is run on it.
    """
    shape = call.shapes[0]
    if torch.Size(shape).numel() > LIMIT:
        return whole(shadow, call.out.ndim).noting(COARSE)
    return shadow.map(lambda part: call.function(align(part, len(shape)).expand(shape), *call.args[1:], **call.kwargs))


def index(call: Any, shadow: Shadow) -> Shadow | None:
    """Indexing by tensors, when their values are known."""
    chosen = [None if i is None else known(i) for i in call.args[1]]
    if any(i is not None and values is None for i, values in zip(call.args[1], chosen, strict=True)):
        return None
    indices = [i for i in chosen if i is not None]
    first = next(dim for dim, i in enumerate(chosen) if i is not None)
    if len(indices) == 1 and indices[0].ndim == 1 and indices[0].dtype == torch.long:
        size = call.shapes[0][first]
        return shadow.map(lambda part: take(part, first, indices[0] % size, size))
    return shuffle(replace(call, args=(call.args[0], chosen, *call.args[2:])), shadow)


def index_select(call: Any, shadow: Shadow) -> Shadow | None:
    """Chosen indices along one dimension, when their values are known."""
    dim, chosen = call.args[1], known(call.args[2])
    return None if chosen is None else shadow.map(lambda part: take(part, dim, chosen, call.shapes[0][dim]))


def join(call: Any) -> Shadow:
    """cat: the parts of the pieces one after the other, unless all agree."""
    pieces, out = call.args[0], call.out
    dim = call.arg(1, "dim", 0) % out.ndim
    shadows = [call.shadow_of(piece) or nothing(out.ndim) for piece in pieces if piece.ndim == out.ndim]
    sizes = [piece.shape[dim] for piece in pieces if piece.ndim == out.ndim]
    notes = frozenset().union(*(shadow.notes for shadow in shadows))
    return Shadow(tuple(_join([s.parts[k] for s in shadows], sizes, dim) for k in range(4)), notes)


def _join(parts: list[Tensor], sizes: list[int], dim: int) -> Tensor:
    if all(part.shape[dim] == 1 for part in parts):
        first = parts[0]
        if all(part is first or (part.shape == first.shape and torch.equal(part, first)) for part in parts[1:]):
            return first
    shape = [max(column) for column in zip(*(part.shape for part in parts), strict=True)]
    wide = []
    for part, size in zip(parts, sizes, strict=True):
        shape[dim] = size
        wide.append(widen(part, dim, size).expand(shape) if part.shape[dim] == 1 else part.expand(shape))
    return torch.cat(wide, dim)


def stack(call: Any) -> Shadow:
    """stack: cat along a new dimension."""
    pieces, out = call.args[0], call.out
    dim = call.arg(1, "dim", 0) % out.ndim
    shadows = [call.shadow_of(piece) or nothing(out.ndim - 1) for piece in pieces]
    notes = frozenset().union(*(shadow.notes for shadow in shadows))
    columns = [[align(s.parts[k], out.ndim - 1).unsqueeze(dim) for s in shadows] for k in range(4)]
    return Shadow(tuple(_join(column, [1] * len(column), dim) for column in columns), notes)


def overwrite(call: Any) -> Shadow:
    """copy_: what was there is gone."""
    source = call.shadow_of(call.args[1])
    return union([source], call.args[0].ndim) if source else nothing(call.args[0].ndim)


def halves(call: Any) -> Shadow:
    """glu: one half of a dimension times the sigmoid of the other."""
    x, dim = call.args[0], call.arg(1, "dim", -1) % call.args[0].ndim
    half = x.shape[dim] // 2
    shadow = call.shadow(0)
    return union([shadow.map(lambda part, a=a: _cut(part, dim, a, half)) for a in (0, half)], x.ndim)
