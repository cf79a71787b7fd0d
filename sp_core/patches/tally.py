"""Running statistics of channels: what is kept of a data set when the maps are gone.

For each image and channel only the **spatial maximum** of the map matters: how strongly the channel fired at its best
place. A tally keeps, for each channel, the ``k`` images with the largest and the ``k`` with the smallest maximum (never
two from one image), the maxima of one random sample of images, a histogram from which percentiles are read, how many
images made it fire, and the sum of the maxima of each class. Its size does not depend on the number of images.

Adding batches in order, or merging the tallies of two runs of images that follow one another, gives the same bytes:
ties go to the earlier image (behind a rectifier, to the larger input), the sample is ruled by a hash of the image's
number, the histogram's cells are multiples of a power of two that depends on the smallest and the largest value only,
and sums are of whole numbers. (Mergeable summaries: Agarwal et al., PODS 2012.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.datasets.counter import keys
from sp_core.patches.extremes import order_of

BINS = 64  # cells of the histogram; the values seen fill at least half of them
SAMPLES = 24  # images in the random sample
UNIT = 2.0**-20  # class sums count in this unit, so that their order does not matter
REGRIDDED = 2048  # histograms at once, so that what they go through stays in the processor's cache
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
    precise = _exponent(torch.maximum(low.abs(), high.abs())) - 24
    level = torch.maximum(_exponent((high - low) / BINS) - 1, precise).clamp_(min=FINEST)
    for _ in range(2):  # the range may begin and end in the middle of a cell
        level += (cells(high, level) - cells(low, level)) >= BINS
    return level.int(), cells(low, level).int()


def _exponent(values: Tensor) -> Tensor:
    """Of float64 ``m · 2ᵉ`` with m in [½, 1), e as int64; -1022 of 0. From the bits: ``frexp`` takes far longer."""
    return (values.view(torch.int64) >> 52) - 1022


def cells(values: Tensor, level: Tensor) -> Tensor:
    """In which cell of 2ᵉ (int64 ``level``) each of the float64 ``values`` lies: int64."""
    scale = ((1023 - level) << 52).view(torch.float64)  # 2⁻ᵉ: multiplied by it, values stay exact
    return (values * scale).floor_().long()


def _coarser(counts: Tensor, level: Tensor, first: Tensor, new_level: Tensor, new_first: Tensor) -> Tensor:
    """Counts ``[c, BINS]`` of one grid in a coarser one."""
    shift = (new_level - level).clamp(0, 62).long()[:, None]
    moved = (first.long()[:, None] + torch.arange(BINS, device=counts.device)) >> shift
    # Cells outside the new grid are empty: the grid holds all values seen.
    return torch.zeros_like(counts).scatter_add_(1, (moved - new_first.long()[:, None]).clamp_(0, BINS - 1), counts)


def regrid(sketch: Tensor, level: Tensor, first: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
    """Bring the histograms of channels ``rows`` to the grid of their smallest and largest values seen, in place."""
    new_level, new_first = grid(low, high)
    other = (new_level != level[rows]) | (new_first != first[rows])
    at_once = REGRIDDED if sketch.device.type == "cpu" else max(len(rows), 1)
    for some, to_level, to_first in zip(*(a[other].split(at_once) for a in (rows, new_level, new_first)), strict=True):
        sketch[some] = _coarser(sketch[some], level[some], first[some], to_level, to_first)
        level[some], first[some] = to_level, to_first


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

    def merge(self, later: Tally, sampled: Tensor, source: Tensor) -> None:
        """Take in the tally of images that come after all of this one's; ``sampled`` as :meth:`Sample.add` says it.

        ``source`` int64 ``[c]``: the channel in whose order each one's images are
        (:func:`sp_core.patches.store.source`).
        """
        a, b = self.arrays, later.arrays
        for side in ("top", "bottom"):
            names = [f"{side}_{what}" for what in ("value", "image", "position")]
            both = [torch.cat([a[name], b[name]], 1) for name in names]
            order = order_of(both[0][source], self.top, side == "bottom")
            for name, array in zip(names, both, strict=True):
                a[name] = array.gather(1, order)
        for name in ("sample_value", "sample_position"):
            a[name] = torch.cat([a[name], b[name]], 1)[:, sampled].contiguous()
        low, high = a["bottom_value"][:, 0], a["top_value"][:, 0]
        regrid(a["sketch"], a["sketch_level"], a["sketch_first"], torch.arange(len(low)), low, high)
        theirs = (b["sketch"], b["sketch_level"], b["sketch_first"])
        a["sketch"] += _coarser(*theirs, a["sketch_level"], a["sketch_first"])
        for name in ("active", "class_sum"):
            a[name] += b[name]
