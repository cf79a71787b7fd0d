"""The images with the largest and the smallest maxima of each channel: few are kept, many are put among them.

Values are compared as whole numbers of the same order, so that a value and its place can be sorted as one number. On
the CPU numpy sorts only what may be kept; on a GPU everything is sorted, because that is cheaper than to choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW = 8  # images of a block that are to be put among those kept of a channel; where there are more, all are sorted
CHANNELS = 4096  # are treated at once, so that what is made of their values stays in the processor's cache
_PLACES = 16  # bits of a place among the values of a block and those kept before
_Floats = NDArray[np.float32]
_Whole = NDArray[np.integer[Any]]


def put(kept: tuple[Tensor, Tensor, Tensor], values: Tensor, places: Tensor, images: Tensor, bottom: bool) -> None:
    """Put images among the ``kept`` values, images and positions ``[c, k]``, which are changed.

    Args:
        kept: of each channel, the largest first, or the smallest if ``bottom``; of equal ones the earlier image first.
        values: float32 ``[c, b]`` without -0.
        places: theirs, int32 ``[c, b]``.
        images: int32 ``[b]``, later than those kept.
        bottom: whether the smallest are kept.

    >>> kept = torch.full((1, 2), -torch.inf), torch.full((1, 2), -1).int(), torch.zeros(1, 2).int()
    >>> put(kept, torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[7, 8, 9]]).int(), torch.arange(3).int(), False)
    >>> kept
    (tensor([[3., 2.]]), tensor([[1, 2]], dtype=torch.int32), tensor([[8, 9]], dtype=torch.int32))
    """
    if values.device.type != "cpu":
        return sort_all(kept, values, places, images, bottom)
    value, image, position = (array.numpy() for array in kept)
    found, spots, numbers = values.numpy(), places.numpy(), images.numpy()
    for first in range(0, len(found), CHANNELS):
        rows = slice(first, first + CHANNELS)
        _sort_few(value[rows], image[rows], position[rows], found[rows], spots[rows], numbers, -1 if bottom else 0)
    return None


def sort_all(kept: tuple[Tensor, Tensor, Tensor], values: Tensor, places: Tensor, images: Tensor, bottom: bool) -> None:
    """As :func:`put`, by sorting all that is kept and all that comes."""
    value, image, position = kept
    turn = -1 if bottom else 0  # in exclusive or, this is ~
    both = torch.cat([value + 0, values], 1).view(torch.int32)
    packed = (both ^ ((both >> 31) & 0x7FFFFFFF) ^ turn).long() << _PLACES
    last = 2**_PLACES - 1
    packed |= last - torch.arange(both.shape[1], device=values.device)
    best = packed.topk(value.shape[1], 1).values
    order = last - (best & last)
    ranks = (best >> _PLACES).int() ^ turn
    value.copy_((ranks ^ ((ranks >> 31) & 0x7FFFFFFF)).view(torch.float32))
    for array, fresh in ((image, images.to(image).expand(values.shape)), (position, places)):
        array.copy_(torch.cat([array, fresh], 1).gather(1, order))


def order_of(values: Tensor, count: int, bottom: bool) -> Tensor:
    """Where the ``count`` largest (smallest if ``bottom``) of each row of float32 ``[c, m]`` are, int64 ``[c, count]``.

    >>> order_of(torch.tensor([[1.0, 3.0, 3.0, -0.0]]), 3, bottom=False)
    tensor([[1, 2, 0]])
    """
    turn = -1 if bottom else 0
    return torch.from_numpy(_largest(_ranks((values + 0).numpy()) ^ turn, count)[1])


def _ranks(values: _Floats) -> _Whole:
    """Whole numbers in the order of ``values`` (float32, without -0): their bits, turned round where negative.

    ``~ranks`` has the opposite order, and :func:`_values` gives the values back.
    """
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _values(ranks: _Whole) -> _Floats:
    return (ranks ^ ((ranks >> 31) & 0x7FFFFFFF)).view(np.float32)


def _largest(ranks: _Whole, count: int) -> tuple[_Whole, _Whole]:
    """The ``count`` largest of each row of ``[n, m]`` in falling order, and where they are; of equal ones the first.

    Rank and place are packed into one whole number, which is sorted ten times as fast as values with their indices.

    >>> _largest(np.array([[10, -20, 10, 5]], dtype=np.int32), 3)
    (array([[10, 10,  5]], dtype=int32), array([[0, 2, 3]]))
    """
    last = 2**_PLACES - 1
    packed = ranks.astype(np.int64) << _PLACES
    packed |= last - np.arange(ranks.shape[1])
    packed.sort(axis=1)
    packed = packed[:, : -count - 1 : -1]
    return (packed >> _PLACES).astype(np.int32), last - (packed & last)


def _sort_few(
    value: _Floats, image: _Whole, position: _Whole, values: _Floats, places: _Whole, images: _Whole, turn: int
) -> None:
    """As :func:`put`, of numpy's arrays; ``turn`` is -1 for the smallest and 0 for the largest.

    Of the images that come only those beyond the last one kept are sorted: after a few batches they are few.
    """
    beyond = values < value[:, -1:] if turn else values > value[:, -1:]
    counts = beyond.sum(1)
    for low, high in ((0, FEW), (FEW, values.shape[1])):
        rows = np.flatnonzero((counts > low) & (counts <= high))
        if not len(rows):
            continue
        old = _ranks(value[rows] + np.float32(0)) ^ turn  # in exclusive or, -1 is ~
        slots, fresh = None, _ranks(values[rows]) ^ turn
        if high == FEW:
            at, slot = _where(beyond[rows])
            first = counts[rows].cumsum() - counts[rows]
            column = np.arange(len(at)) - np.repeat(first, counts[rows])
            slots = np.zeros((len(rows), FEW), np.int64)
            slots[at, column] = slot
            narrow = np.full((len(rows), FEW), np.iinfo(np.int32).min, np.int32)
            narrow[at, column] = fresh[at, slot]
            fresh = narrow
        best, order = _largest(np.concatenate([old, fresh], 1), value.shape[1])
        at, column = _where(order >= value.shape[1])
        slot = order[at, column] - value.shape[1]
        if slots is not None:
            slot = slots[at, slot]
        np.minimum(order, value.shape[1] - 1, out=order)
        value[rows] = _values(best ^ turn)
        for array, new in ((image, images[slot]), (position, places[rows[at], slot])):
            moved = np.take_along_axis(array[rows], order, 1)
            moved[at, column] = new
            array[rows] = moved


def _where(true: NDArray[np.bool_]) -> tuple[_Whole, _Whole]:
    """``true.nonzero()`` of ``[n, m]``, ten times as fast."""
    row, column = np.divmod(np.flatnonzero(true), true.shape[1])
    return row, column
