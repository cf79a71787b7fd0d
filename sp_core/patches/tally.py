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

import numpy as np
import torch
from torch import Tensor

from sp_core.datasets.counter import keys

BINS = 64  # cells of the histogram; the values seen fill at least half of them
SAMPLES = 24  # images in the random sample
UNIT = 2.0**-20  # class sums count in this unit, so that their order does not matter
LIMIT = 2.0**22  # and maxima beyond it count as this, so that two million images fit 63 bits
_PLACES = 16  # bits of a place among the values of a block and those kept before
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


def _largest(values: Tensor, count: int) -> Tensor:
    """Where the ``count`` largest values of each row of ``[n, m]`` are, in falling order; of equal ones the first.

    Value and place are packed into one whole number, because numpy sorts those ten times as fast as torch sorts floats
    with their indices: the bits of a float, read as a number and turned where it is negative, are in its order.

    >>> _largest(torch.tensor([[1.0, -2.0, 1.0, 0.5]]), 3).tolist()
    [[0, 2, 3]]
    """
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0, which equals it
    packed = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << _PLACES | (2**_PLACES - 1 - torch.arange(values.shape[1]))
    largest = np.sort(packed.numpy(), axis=1)[:, : -count - 1 : -1]
    return (2**_PLACES - 1) - (torch.from_numpy(largest.copy()) & (2**_PLACES - 1))


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
        a = self.arrays
        for side, sign in (("top", 1.0), ("bottom", -1.0)):
            self._extremes(side, sign, maxima, places, images)
        if sampled is not None:
            self._sample(maxima, places, sampled)
        self._regrid()
        cells = _cell(maxima.T, a["sketch_level"][:, None]) - a["sketch_first"].long()[:, None]  # [c, b]
        a["sketch"].scatter_add_(1, cells, torch.ones_like(cells, dtype=torch.int32))
        a["active"] += (maxima > 0).sum(0, dtype=torch.int32)
        known = labels >= 0
        if len(a["class_sum"]) and bool(known.any()):
            whole = (maxima[known].double().clamp_(-LIMIT, LIMIT) / UNIT).round_().long()
            a["class_sum"].index_add_(0, labels[known], whole)

    def _extremes(self, side: str, sign: float, maxima: Tensor, places: Tensor, images: Tensor) -> None:
        value, image, position = (self.arrays[f"{side}_{what}"] for what in ("value", "image", "position"))
        # Only channels where the batch beats the last one kept; after a few batches those are few.
        rows = ((sign * maxima).amax(0) > sign * value[:, -1]).nonzero()[:, 0]
        if not len(rows):
            return
        order = _largest(sign * torch.cat([value[rows], maxima.T[rows]], 1), self.top)
        kept, slots = order < self.top, (order - self.top).clamp_min_(0)
        order = order.clamp_max_(self.top - 1)
        for array, fresh in (
            (value, maxima[slots, rows[:, None]]),
            (image, images.int()[slots]),
            (position, places[slots, rows[:, None]].int()),
        ):
            array[rows] = torch.where(kept, array[rows].gather(1, order), fresh)

    def _sample(self, maxima: Tensor, places: Tensor, order: Tensor) -> None:
        a = self.arrays
        for what, fresh in (("sample_value", maxima), ("sample_position", places)):
            a[what] = torch.cat([a[what], fresh.T.to(a[what].dtype)], 1)[:, order].contiguous()

    def _regrid(self) -> None:
        """Bring the histogram to the grid of the smallest and largest value seen."""
        a = self.arrays
        level, first = grid(a["bottom_value"][:, 0], a["top_value"][:, 0])
        rows = ((level != a["sketch_level"]) | (first != a["sketch_first"])).nonzero()[:, 0]
        if len(rows):
            old = (a["sketch"][rows], a["sketch_level"][rows], a["sketch_first"][rows])
            a["sketch"][rows] = _coarser(*old, level[rows], first[rows])
            a["sketch_level"], a["sketch_first"] = level, first

    def merge(self, later: Tally, sampled: Tensor) -> None:
        """Take in the tally of images that come after all of this one's; ``sampled`` as :meth:`Sample.add` says it."""
        a, b = self.arrays, later.arrays
        for side, sign in (("top", 1.0), ("bottom", -1.0)):
            names = [f"{side}_{what}" for what in ("value", "image", "position")]
            both = [torch.cat([a[name], b[name]], 1) for name in names]
            order = _largest(sign * both[0], self.top)
            for name, array in zip(names, both, strict=True):
                a[name] = array.gather(1, order)
        for name in ("sample_value", "sample_position"):
            a[name] = torch.cat([a[name], b[name]], 1)[:, sampled].contiguous()
        self._regrid()
        old = (b["sketch"], b["sketch_level"], b["sketch_first"])
        a["sketch"] += _coarser(*old, a["sketch_level"], a["sketch_first"])
        for name in ("active", "class_sum"):
            a[name] += b[name]
