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
        sort_all(kept, values, places, images, bottom)
        return
    value, image, position = (array.numpy() for array in kept)
    found, spots, numbers = values.numpy(), places.numpy(), images.numpy()
    for first in range(0, len(found), CHANNELS):
        rows = slice(first, first + CHANNELS)
        _sort_few(value[rows], image[rows], position[rows], found[rows], spots[rows], numbers, -1 if bottom else 0)


def sort_all(kept: tuple[Tensor, Tensor, Tensor], values: Tensor, places: Tensor, images: Tensor, bottom: bool) -> None:
    """As :func:`put`, by sorting all that is kept and all that comes."""
    order = order_of(torch.cat([kept[0], values], 1), kept[0].shape[1], bottom)
    for array, fresh in zip(kept, (values, images.to(kept[1]).expand(values.shape), places), strict=True):
        array.copy_(torch.cat([array, fresh], 1).gather(1, order))


def order_of(values: Tensor, count: int, bottom: bool) -> Tensor:
    """Where the ``count`` largest (smallest if ``bottom``) of each row of float32 ``[c, m]`` are, int64 ``[c, count]``.

    On the device of ``values``; of equal ones the first.

    >>> order_of(torch.tensor([[1.0, 3.0, 3.0, -0.0]]), 3, bottom=False)
    tensor([[1, 2, 0]])
    """
    ranks = _turned_round((values + 0).view(torch.int32)) ^ (-1 if bottom else 0)  # in exclusive or, -1 is ~
    last = 2**_PLACES - 1
    packed = (ranks.long() << _PLACES) | (last - torch.arange(ranks.shape[1], device=ranks.device))
    return last - (packed.topk(count, 1).values & last)


def _turned_round(bits: Any) -> Any:
    """The bits of float32 numbers (numpy's or torch's int32) as whole numbers of the same order, and back again."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _ranks(values: _Floats) -> _Whole:
    """Whole numbers in the order of ``values`` (float32, without -0): their bits, turned round where negative.

    ``~ranks`` has the opposite order.
    """
    ranks: _Whole = _turned_round(values.view(np.int32))
    return ranks


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
        value[rows] = _turned_round(best ^ turn).view(np.float32)
        for array, new in ((image, images[slot]), (position, places[rows[at], slot])):
            moved = np.take_along_axis(array[rows], order, 1)
            moved[at, column] = new
            array[rows] = moved


def _where(true: NDArray[np.bool_]) -> tuple[_Whole, _Whole]:
    """``true.nonzero()`` of ``[n, m]``, ten times as fast."""
    row, column = np.divmod(np.flatnonzero(true), true.shape[1])
    return row, column
