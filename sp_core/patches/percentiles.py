"""From what is kept of a channel to its cumulative distribution: exact at both ends and at 0, interpolated between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def percentiles(kept: Mapping[str, NDArray[Any]], images: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value, the share of ``images``, 0 to 100, whose spatial maximum is not above it; NaN for NaN.

    ``kept`` are the arrays of one channel of :class:`~sp_core.patches.tally.Tally`. At and above the least of the top
    values, and below the largest of the bottom values, images are counted; elsewhere the histogram is read, linearly
    within a cell.
    """
    top = kept["top_value"][kept["top_image"] >= 0].astype(np.float64)
    bottom = kept["bottom_value"][kept["bottom_image"] >= 0].astype(np.float64)
    places, shares = _curve(kept, images, bottom.min(), top.max())
    found = np.interp(values, places, shares)
    above = np.array([(top > value).sum() for value in values])
    below = np.array([(bottom <= value).sum() for value in values])
    found = np.where(values >= top.min(), 1 - above / images, found)
    found = np.where(values < bottom.max(), below / images, found)
    return np.where(np.isnan(values), np.nan, 100 * found)


def _curve(
    kept: Mapping[str, NDArray[Any]], images: int, lowest: float, highest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (value, share of the images not above it), ascending."""
    counts = kept["sketch"].astype(np.float64)
    edges = np.ldexp(float(kept["sketch_first"]) + np.arange(1, len(counts)), int(kept["sketch_level"]))
    below = counts.cumsum()[:-1] / images
    points = [(lowest, 0.0), (highest, 1.0)]
    points += [(edge, share) for edge, share in zip(edges, below, strict=True) if lowest < edge < highest]
    if lowest <= 0 < highest:
        # Behind a ReLU many maxima are exactly 0; they must not be spread over the cell that begins there.
        silent = 1 - float(kept["active"]) / images
        points = [(place, max(share, silent) if place > 0 else min(share, silent)) for place, share in points]
        points.append((0.0, silent))
    places, shares = np.array(sorted(points)).T
    return places, np.maximum.accumulate(shares)
