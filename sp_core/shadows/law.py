"""From the boxes of a row of units to their law: size, stride and start along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.shadows.shadow import EMPTY

REACHES = (8, 4, 2, 1)  # units on each side of the middle that are looked at: up to period 16 is recognised


@dataclass(frozen=True)
class AxisLaw:
    """The law of the units of each channel along one axis: unit u sees ``start + u·stride … + size − 1``.

    Attributes:
        size, start: int64 ``[channels]``; 0 for a channel that sees nothing.
        stride: 0 where all units see the same.
        whole: bool ``[channels]``: every unit of the channel that sees anything sees the same, however large the image.
        even: whether the law is exact; otherwise it holds on average, and ``size`` is that of the largest field.
    """

    size: Tensor
    start: Tensor
    stride: float
    whole: Tensor
    even: bool


def axis_law(low: Tensor, high: Tensor, extent: int, clipped: bool = False) -> AxisLaw | None:
    """The law of units whose first and last pixels are ``low`` and ``high``, both ``[channels, units]``.

    Units in the middle are read, where the image of ``extent`` pixels clips nothing. None when it clips them all;
    with ``clipped`` the middle is read all the same.
    """
    low, high = low.long(), high.long()
    blind = low >= EMPTY  # a unit that lies in the padding sees nothing, those further in may
    nothing = blind.all(1)
    same = (low == low.amin(1, keepdim=True)) & (high == high.amax(1, keepdim=True))
    whole = (same | blind).all(1)
    moving = ~whole
    size, start = (high - low + 1).amax(1), low.amin(1)
    size[nothing], start[nothing] = 0, 0
    whole = whole & ~nothing
    if not bool(moving.any()):
        return AxisLaw(size, start, 0, whole, True)
    units, middle = low.shape[1], low.shape[1] // 2
    for reach in REACHES:
        first, last = middle - reach, middle + reach
        if first < 0 or last >= units:
            continue
        lo, hi = low[moving, first : last + 1], high[moving, first : last + 1]
        if bool((lo < EMPTY).all()) and (clipped or (bool((lo > 0).all()) and bool((hi < extent - 1).all()))):
            break
    else:
        if not clipped:
            return None
        seen = (low[moving] < EMPTY).all(0).nonzero()
        if len(seen) < 2:  # no step between two units to read a stride from
            return AxisLaw(size.clamp(min=0), start, 0, whole, False)
        first, last = int(seen[0]), int(seen[-1])
        lo, hi = low[moving, first : last + 1], high[moving, first : last + 1]
    steps, sizes = lo.diff(dim=1), hi - lo + 1
    even = bool((steps == steps[0, 0]).all()) and bool((sizes == sizes[:, :1]).all())
    stride = _rational(int((lo[:, -1] - lo[:, 0]).max()), last - first)
    at = torch.arange(first, last + 1)
    size[moving] = sizes.amax(1)
    start[moving] = torch.floor((lo - at * stride).amax(1).double()).long()
    return AxisLaw(size, start, stride, whole, even)


def _rational(distance: int, count: int) -> float:
    """``distance / count``, an int where it is one."""
    return distance // count if count and distance % count == 0 else distance / max(count, 1)
