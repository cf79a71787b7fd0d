"""Counting: what a block of images changes in a tally, on the device that the network is on.

Channels that are in the order of another (:func:`sp_core.patches.plan.rising`) have its images at both ends and in the
sample; only their histograms, active images and class sums are their own. So two of three channels are not sorted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sp_core.patches.extremes import CHANNELS, put
from sp_core.patches.tally import BINS, UNIT, Tally, cells, regrid

LIMIT = 2.0**22  # maxima beyond it count as this in a class sum, so that two million images fit 63 bits
_KEPT = ("value", "image", "position")


class Counting:
    """Takes blocks of images into ``tally``, which is up to date after :meth:`put_back`.

    Args:
        tally: of the images before.
        source: int64 ``[c]``: the channel in whose order a channel's images are, or itself; by default always itself.
        device: where what is added lies; a GPU counts itself, if it is of a kind that can (CUDA).

    ``heard`` int64 ``[h]`` are the channels that are in an order of their own.
    """

    def __init__(self, tally: Tally, source: Tensor | None = None, device: torch.device | None = None) -> None:
        self.tally = tally
        self.device = device if device is not None and device.type == "cuda" else torch.device("cpu")
        a, count = tally.arrays, len(tally.arrays["active"])
        source = torch.arange(count) if source is None else source
        heard, self.rank = source.unique(return_inverse=True)  # rank [c]: which of the heard a channel follows
        self.heard = heard.to(self.device)
        self.ends = {side: self._end(side, heard) for side in ("top", "bottom")}
        self.sample = [self._to(a[f"sample_{what}"][heard]) for what in ("value", "position")]
        self.low, self.high = (self._to(a[f"{side}_value"][:, 0].clone()) for side in ("bottom", "top"))
        self.sketch, self.level, self.first = (self._to(a[f"sketch{end}"]) for end in ("", "_level", "_first"))
        self.active, self.sums = self._to(a["active"]), self._to(a["class_sum"])

    def _end(self, side: str, heard: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, image, position = (self._to(self.tally.arrays[f"{side}_{what}"][heard]) for what in _KEPT)
        return value, image, position

    def _to(self, array: Tensor) -> Tensor:
        return array.to(self.device)

    def add(self, maxima: Tensor, places: Tensor, images: Tensor, labels: Tensor, sampled: Tensor | None) -> None:
        """Take in maxima ``[b, c]`` (float32, finite) of ``images`` ``[b]`` (larger numbers than all before).

        ``places`` ``[b, h]`` are the flat positions of the maxima of the heard channels; ``sampled`` is what
        :meth:`~sp_core.patches.tally.Sample.add` says. ``images``, ``labels`` and ``sampled`` are on the CPU.
        """
        values = self._to(maxima).T.contiguous()  # one channel's values lie together
        values += 0.0  # -0 becomes 0, which equals it
        mine, spots, images = values.index_select(0, self.heard), self._to(places).T, self._to(images)
        if sampled is not None:
            for which, fresh in enumerate((mine, spots)):
                self.sample[which] = torch.cat([self.sample[which], fresh], 1)[:, self._to(sampled)]
        for side in ("top", "bottom"):
            put(self.ends[side], mine, spots, images, side == "bottom")
        self._stretch(values)
        at_once = CHANNELS if self.device.type == "cpu" else max(len(values), 1)
        labels = self._to(labels)
        present = labels[labels >= 0].unique() if len(self.sums) else labels[:0]
        for first in range(0, len(values), at_once):
            where = slice(first, first + at_once)
            part = values[where]
            self.sketch[where] += _histogram(part, self.level[where], self.first[where])
            self.active[where] += (part > 0).sum(1, dtype=torch.int32)
            if len(present):
                _sum_classes(self.sums[:, where], part, labels, present)

    def _stretch(self, values: Tensor) -> None:
        """Bring the histograms to grids in which ``values`` ``[c, b]`` have a cell."""
        low, high = values.amin(1), values.amax(1)
        rows = ((low < self.low) | (high > self.high)).nonzero()[:, 0]
        torch.minimum(self.low, low, out=self.low)
        torch.maximum(self.high, high, out=self.high)
        regrid(self.sketch, self.level, self.first, rows, self.low[rows], self.high[rows])

    def put_back(self, rise: Callable[[Tensor], Tensor] | None = None) -> Tally:
        """Bring ``tally`` up to date and return it.

        ``rise`` makes of values ``[n, h]`` of the heard channels those of all, ``[n, c]``.
        """
        a = self.tally.arrays
        for side, nothing in (("top", -torch.inf), ("bottom", torch.inf)):
            value, image, position = self.ends[side]
            a[f"{side}_image"], a[f"{side}_position"] = image.cpu()[self.rank], position.cpu()[self.rank]
            a[f"{side}_value"] = self._risen(value, rise).masked_fill_(a[f"{side}_image"] < 0, nothing)
        a["sample_value"] = self._risen(self.sample[0], rise)
        a["sample_position"] = self.sample[1].cpu()[self.rank]
        a["sketch"], a["sketch_level"], a["sketch_first"] = self.sketch.cpu(), self.level.cpu(), self.first.cpu()
        a["active"], a["class_sum"] = self.active.cpu(), self.sums.cpu()
        return self.tally

    def _risen(self, values: Tensor, rise: Callable[[Tensor], Tensor] | None) -> Tensor:
        """``values`` ``[h, n]`` of the heard channels as those of all: ``[c, n]`` on the CPU, without -0."""
        found = values[self._to(self.rank)] if rise is None else rise(values.T).T
        return found.contiguous().cpu() + 0.0


def _histogram(values: Tensor, level: Tensor, first: Tensor) -> Tensor:
    """How many of the values ``[c, b]`` lie in each cell: int32 ``[c, BINS]``; :func:`grid` says which cells."""
    which = cells(values.double(), level.long()[:, None]) - first.long()[:, None]
    which += torch.arange(0, len(values) * BINS, BINS, device=values.device)[:, None]
    return torch.bincount(which.flatten(), minlength=len(values) * BINS).view(-1, BINS).int()


def _sum_classes(sums: Tensor, values: Tensor, labels: Tensor, present: Tensor) -> None:
    """Add ``values`` ``[c, b]`` to the ``sums`` ``[classes, c]`` of the classes ``present`` in ``labels`` ``[b]``."""
    # Whole numbers up to 2⁴², of a block of at most 2¹¹: their sums are exact in float64.
    whole = (values.double().clamp_(-LIMIT, LIMIT) / UNIT).round_()
    sums[present] += (whole @ (labels[:, None] == present).double()).T.long()
