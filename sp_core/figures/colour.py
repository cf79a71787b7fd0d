"""Colour maps that colour-blind people can read: values to RGB bytes.

Signed values get a diverging map centred at zero (ColorBrewer *RdBu*, reversed: blue is negative, red positive).
Positive values get *viridis*. What is not a number is mid grey with no claim to a value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# ColorBrewer 2.0, RdBu with 11 classes (Brewer, Harrower, Pennsylvania State University), from blue to red.
DIVERGING = (
    "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
    "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f",
)  # fmt: skip
# viridis (Smith and van der Walt 2015), every tenth of the way.
SEQUENTIAL = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
    "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
# Okabe and Ito 2008: eight colours that stay apart for all common kinds of colour vision; yellow and black left out.
QUALITATIVE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
NOT_A_NUMBER = (128, 128, 128)


def _table(anchors: tuple[str, ...]) -> NDArray[np.uint8]:
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in anchors], dtype=np.float64)
    # 255 entries, an odd number, so that zero of a signed map has an entry of its own in the middle.
    at = np.linspace(0, len(anchors) - 1, 255)
    return (
        np.stack([np.interp(at, range(len(anchors)), stops[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)
    )


_DIVERGING_TABLE, _SEQUENTIAL_TABLE = _table(DIVERGING), _table(SEQUENTIAL)


def scale(anchors: tuple[str, ...]) -> list[tuple[float, str]]:
    """The anchors as a plotly colour scale: ``[(0.0, "#…"), …, (1.0, "#…")]``."""
    return [(i / (len(anchors) - 1), colour) for i, colour in enumerate(anchors)]


def diverging(values: ArrayLike, limit: float | None = None) -> NDArray[np.uint8]:
    """Signed values of any shape to RGB, ``[…, 3]``: zero is near white, ``-limit`` dark blue, ``+limit`` dark red.

    ``limit`` defaults to the largest finite magnitude; an all-zero input is all near white. Beyond the limit the
    end colour is kept; NaN is mid grey.

    >>> diverging([[0.0, 1.0]])[0].tolist()
    [[247, 247, 247], [103, 0, 31]]
    """
    array = np.asarray(values, dtype=np.float64)
    finite = np.abs(array[np.isfinite(array)])
    top = (finite.max(initial=0.0) if limit is None else limit) or 1.0
    return _look_up(_DIVERGING_TABLE, array / top / 2 + 0.5)


def sequential(values: ArrayLike, low: float | None = None, high: float | None = None) -> NDArray[np.uint8]:
    """Values of any shape to RGB, ``[…, 3]``, from dark violet at ``low`` to yellow at ``high``.

    The bounds default to the smallest and largest finite value; a constant input is all the low colour.

    >>> sequential([0.0, 1.0]).tolist()
    [[68, 1, 84], [253, 231, 37]]
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    bottom = (finite.min() if finite.size else 0.0) if low is None else low
    top = (finite.max() if finite.size else 1.0) if high is None else high
    return _look_up(_SEQUENTIAL_TABLE, (array - bottom) / ((top - bottom) or 1.0))


def _look_up(table: NDArray[np.uint8], fraction: NDArray[np.float64]) -> NDArray[np.uint8]:
    missing = np.isnan(fraction)
    index = np.floor(np.where(missing, 0.0, fraction).clip(0, 1) * (len(table) - 1) + 0.5).astype(np.intp)
    colours = table[index]
    colours[missing] = NOT_A_NUMBER
    return colours
