"""Running statistics of channels: what is kept of a data set when the maps are gone.

For each image and channel only the **spatial maximum** of the map matters: how strongly the channel fired at its best
place. A tally keeps, for each channel, the ``k`` images with the largest and the ``k`` with the smallest maximum (never
two from one image), the maxima of one random sample of images, a histogram from which percentiles are read, how many
images made it fire, and the sum of the maxima of each class. Its size does not depend on the number of images.

Adding batches in order, or merging the tallies of two runs of images that follow one another, gives the same bytes:
ties go to the earlier image, the sample is ruled by a hash of the image's number, the histogram's cells are multiples
of a power of two that depends on the smallest and the largest value only, and sums are of whole numbers. (Mergeable
summaries: Agarwal et al., PODS 2012.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sp_core.datasets.counter import keys

BINS = 64  # cells of the histogram; the values seen fill at least half of them
SAMPLES = 24  # images in the random sample
UNIT = 2.0**-20  # class sums count in this unit, so that their order does not matter
LIMIT = 2.0**22  # and maxima beyond it count as this, so that two million images fit 63 bits
FEW = 8  # images of a block that are to be put among those kept of a channel; where there are more, all are sorted
CHANNELS = 4096  # are counted at once, so that what is made of their values stays in the processor's cache
_PLACES = 16  # bits of a place among the values of a block and those kept before
_Floats = NDArray[np.float32]
_Whole = NDArray[np.integer[Any]]
FINEST = -140  # the level (cells of 2⁻¹⁴⁰) of a histogram that has seen nothing


@dataclass
class Sample:
    """The images of the random sample: those whose hash is lowest, in that order. The same for all layers."""

    images: Tensor
    size: int = SAMPLES

    def add(self, images: Tensor) -> Tensor | None:
        """Consider ``images`` ``[b]``; return where each slot now comes from (old slots, then the batch), or None.

        None means that nothing changed.
        """
        held = len(self.images)
        everything = torch.cat([self.images, images])
        order = keys(0, everything.long()).argsort()[: self.size]
        if len(order) == held and bool((order == torch.arange(held)).all()):
            return None
        self.images = everything[order]
        return order


def grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The finest level e at which values ``low … high`` lie in BINS cells of 2ᵉ, and the number of the first cell.

    Never finer than the values' own precision (24 bits). Larger ranges have the same or larger levels, and cells of a
    level are made of whole cells of the finer ones, which is why the order of the values does not matter.

    >>> grid(torch.tensor([-1.0]), torch.tensor([1.0]))
    (tensor([-4], dtype=torch.int32), tensor([-16], dtype=torch.int32))
    """
    low, high = low.double(), high.double()
    precise = torch.frexp(torch.maximum(low.abs(), high.abs())).exponent - 24
    level = torch.frexp((high - low) / BINS).exponent - 1
    level = torch.maximum(level, precise).clamp_(min=FINEST)
    for _ in range(2):  # the range may begin and end in the middle of a cell
        level = level + ((_cell(high, level) - _cell(low, level)) >= BINS).int()
    return level.int(), _cell(low, level).int()


def _cell(values: Tensor, level: Tensor) -> Tensor:
    scale = torch.ldexp(torch.ones_like(level, dtype=torch.float64), -level)
    return (values.double() * scale).floor_().long()  # times a power of two: exact


def _coarser(counts: Tensor, level: Tensor, first: Tensor, new_level: Tensor, new_first: Tensor) -> Tensor:
    """Counts ``[c, BINS]`` of one grid in a coarser one."""
    shift = (new_level - level).clamp(0, 62).long()[:, None]
    cells = (first.long()[:, None] + torch.arange(BINS)) >> shift
    # Cells outside the new grid are empty: the grid holds all values seen.
    return torch.zeros_like(counts).scatter_add_(1, (cells - new_first.long()[:, None]).clamp_(0, BINS - 1), counts)


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


def _extremes(
    value: _Floats, image: _Whole, position: _Whole, ranks: _Whole, bottom: bool, places: _Whole, images: _Whole
) -> NDArray[np.bool_]:
    """Put the images with the largest ``ranks`` ``[c, b]`` among the ``[c, k]`` kept; return whose first has changed.

    Of the other images only those beyond the last one kept are sorted: after a few batches they are few.
    """
    turn = -1 if bottom else 0  # in exclusive or, this is ~
    kept = _ranks(value + np.float32(0)) ^ turn
    beyond = ranks > kept[:, -1:]
    counts = beyond.sum(1)
    for low, high in ((0, FEW), (FEW, ranks.shape[1])):
        rows = np.flatnonzero((counts > low) & (counts <= high))
        if not len(rows):
            continue
        old, slots, fresh = kept[rows], None, ranks[rows]
        if high == FEW:
            at, slot = _where(beyond[rows])
            first = counts[rows].cumsum() - counts[rows]
            column = np.arange(len(at)) - np.repeat(first, counts[rows])
            slots = np.zeros((len(rows), FEW), np.int64)
            slots[at, column] = slot
            narrow = np.full((len(rows), FEW), np.iinfo(np.int32).min, np.int32)
            narrow[at, column] = fresh[at, slot]
            fresh = narrow
        best, order = _largest(np.concatenate([old, fresh], 1), kept.shape[1])
        at, column = _where(order >= kept.shape[1])
        slot = order[at, column] - kept.shape[1]
        if slots is not None:
            slot = slots[at, slot]
        np.minimum(order, kept.shape[1] - 1, out=order)
        value[rows] = _values(best ^ turn)
        for array, new in ((image, images[slot]), (position, places[slot, rows[at]])):
            moved = np.take_along_axis(array[rows], order, 1)
            moved[at, column] = new
            array[rows] = moved
    return kept[:, 0] != (_ranks(value[:, 0]) ^ turn)


def _where(true: NDArray[np.bool_]) -> tuple[_Whole, _Whole]:
    """``true.nonzero()`` of ``[n, m]``, ten times as fast."""
    row, column = np.divmod(np.flatnonzero(true), true.shape[1])
    return row, column


def _histogram(values: _Floats, level: _Whole, first: _Whole) -> NDArray[np.int32]:
    """How many of the values ``[c, b]`` lie in each cell: ``[c, BINS]``; :func:`grid` says which cells."""
    cells = values.astype(np.float64)
    cells *= np.ldexp(1.0, -level)[:, None]  # a power of two: exact
    np.floor(cells, out=cells)
    cells += (np.arange(0, len(values) * BINS, BINS) - first)[:, None]
    counts = np.bincount(cells.astype(np.int64).ravel(), minlength=len(values) * BINS)
    return counts.reshape(-1, BINS).astype(np.int32)


class Tally:
    """The statistics of ``channels`` channels; see the module. ``arrays`` holds all of it, by name.

    ``top_value`` float32 ``[c, k]`` descending (-inf where there are fewer images), ``top_image`` int32 (-1: none),
    ``top_position`` int32 flat; the same for ``bottom_`` (ascending, +inf) and ``sample_value``, ``sample_position``
    ``[c, ≤ s]``; ``sketch`` int32 ``[c, BINS]``: how many values lie in cell ``sketch_first + i`` of 2^``sketch_level``
    (both int32 ``[c]``, see :func:`grid`); ``active`` int32 ``[c]``: images with a maximum above 0; ``class_sum`` int64
    ``[classes, c]`` in units of 2⁻²⁰.
    """

    def __init__(self, channels: int, top: int, classes: int) -> None:
        whole = torch.int32
        self.top = top
        self.arrays: dict[str, Tensor] = {
            "top_value": torch.full((channels, top), -torch.inf),
            "top_image": torch.full((channels, top), -1, dtype=whole),
            "top_position": torch.zeros((channels, top), dtype=whole),
            "bottom_value": torch.full((channels, top), torch.inf),
            "bottom_image": torch.full((channels, top), -1, dtype=whole),
            "bottom_position": torch.zeros((channels, top), dtype=whole),
            "sample_value": torch.zeros((channels, 0)),
            "sample_position": torch.zeros((channels, 0), dtype=whole),
            "sketch": torch.zeros((channels, BINS), dtype=whole),
            "sketch_level": torch.full((channels,), FINEST, dtype=whole),
            "sketch_first": torch.zeros((channels,), dtype=whole),
            "active": torch.zeros((channels,), dtype=whole),
            "class_sum": torch.zeros((classes, channels), dtype=torch.int64),
        }

    def part(self, where: slice) -> Tally:
        """The tally of some of the channels; it shares the memory of this one."""
        one = Tally(0, self.top, 0)
        for what, array in self.arrays.items():
            one.arrays[what] = array[:, where] if what == "class_sum" else array[where]
        return one

    def add(self, maxima: Tensor, places: Tensor, images: Tensor, labels: Tensor, sampled: Tensor | None) -> None:
        """Take in maxima ``[b, c]`` (float32, finite) of ``images`` ``[b]`` (larger numbers than all before).

        ``places`` ``[b, c]`` are the flat positions of the maxima; ``sampled`` is what :meth:`Sample.add` says.
        """
        if sampled is not None:
            self._sample(maxima, places, sampled)
        a = {name: array.numpy() for name, array in self.arrays.items()}
        values = maxima.T.contiguous().numpy()  # one channel's values lie together
        values += np.float32(0)  # -0 becomes 0, which equals it
        spots, numbers = places.numpy(), images.numpy()
        parts = [slice(first, first + CHANNELS) for first in range(0, len(values), CHANNELS)]
        changed = np.zeros(len(values), dtype=bool)
        for where in parts:
            ranks = _ranks(values[where])
            for side, ordered in (("top", ranks), ("bottom", ~ranks)):
                value, image, position = (a[f"{side}_{what}"][where] for what in ("value", "image", "position"))
                changed[where] |= _extremes(value, image, position, ordered, side == "bottom", spots[:, where], numbers)
        self._regrid(torch.from_numpy(np.flatnonzero(changed)))
        for where in parts:
            a["sketch"][where] += _histogram(values[where], a["sketch_level"][where], a["sketch_first"][where])
            a["active"][where] += np.count_nonzero(values[where] > 0, axis=1).astype(np.int32)
        if len(a["class_sum"]):
            self._sum_classes(a["class_sum"], values, labels.numpy())

    @staticmethod
    def _sum_classes(sums: _Whole, values: _Floats, labels: _Whole) -> None:
        """Add ``values`` ``[c, b]`` to the ``sums`` ``[classes, c]`` of the classes ``labels`` ``[b]``, -1 to none."""
        present = [int(label) for label in np.unique(labels) if label >= 0]
        if not present:
            return
        # Whole numbers below 2⁴², of a block of at most some hundreds: their sums are exact in float64.
        mine = (labels[:, None] == np.array(present)).astype(np.float64)  # [b, present]
        for first in range(0, len(values), CHANNELS):
            where = slice(first, first + CHANNELS)
            whole = np.clip(values[where], -LIMIT, LIMIT).astype(np.float64)
            whole /= UNIT
            np.rint(whole, out=whole)
            sums[present, where] += (whole @ mine).T.astype(np.int64)

    def _sample(self, maxima: Tensor, places: Tensor, order: Tensor) -> None:
        held = self.arrays["sample_value"].shape[1]
        kept = order < held
        old, new = order[kept].numpy(), (order[~kept] - held).numpy()
        for what, fresh in (("sample_value", maxima), ("sample_position", places)):
            before = self.arrays[what].numpy()
            array = np.empty((len(before), len(order)), before.dtype)
            array[:, kept.numpy()] = np.take(before, old, 1)
            array[:, ~kept.numpy()] = fresh.numpy()[new].T + before.dtype.type(0)  # -0 becomes 0
            self.arrays[what] = torch.from_numpy(array)

    def _regrid(self, rows: Tensor) -> None:
        """Bring the histograms of channels ``rows`` to the grid of the smallest and largest value seen."""
        a = self.arrays
        level, first = grid(a["bottom_value"][rows, 0], a["top_value"][rows, 0])
        other = (level != a["sketch_level"][rows]) | (first != a["sketch_first"][rows])
        rows, level, first = rows[other], level[other], first[other]
        if len(rows):
            old = (a["sketch"][rows], a["sketch_level"][rows], a["sketch_first"][rows])
            a["sketch"][rows] = _coarser(*old, level, first)
            a["sketch_level"][rows], a["sketch_first"][rows] = level, first

    def merge(self, later: Tally, sampled: Tensor) -> None:
        """Take in the tally of images that come after all of this one's; ``sampled`` as :meth:`Sample.add` says it."""
        a, b = self.arrays, later.arrays
        for side, sign in (("top", 1.0), ("bottom", -1.0)):
            names = [f"{side}_{what}" for what in ("value", "image", "position")]
            both = [torch.cat([a[name], b[name]], 1) for name in names]
            order = torch.from_numpy(_largest(_ranks((sign * both[0] + 0.0).numpy()), self.top)[1])
            for name, array in zip(names, both, strict=True):
                a[name] = array.gather(1, order)
        for name in ("sample_value", "sample_position"):
            a[name] = torch.cat([a[name], b[name]], 1)[:, sampled].contiguous()
        self._regrid(torch.arange(len(a["active"])))
        old = (b["sketch"], b["sketch_level"], b["sketch_first"])
        a["sketch"] += _coarser(*old, a["sketch_level"], a["sketch_first"])
        for name in ("active", "class_sum"):
            a[name] += b[name]
