"""Maps of an image (gradients, attributions) as pictures, and the curves that test them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sp_core.errors import SpError
from sp_core.figures import colour

if TYPE_CHECKING:
    from sp_core.faithfulness import Curves

VIEWS = {
    "signed": "Signed: sum over colours",
    "rgb": "Signed: in RGB",
    "absolute": "Absolute: strongest colour",
}
"""How a map ``[c, h, w]`` becomes a picture: its signed sum over channels on a diverging map; its channels as colours
around mid grey (the look of Springenberg's figures); or the largest magnitude over channels (Simonyan et al. 2014)."""
QUANTILE = 0.995  # of what is not zero: else the one strongest pixel would grey all others


@dataclass(frozen=True)
class Scale:
    """What the colours of one picture mean.

    Attributes:
        limit: the value at the end of the scale; beyond it the end colour is kept.
        gain: 1, or the round number (1, 2 or 5 times a power of ten) by which this map was multiplied to be seen at all
            on a common scale; ``limit`` is the limit after that, that is, common limit / gain.
    """

    limit: float
    gain: int = 1


def reduced(values: ArrayLike, view: str = "signed") -> NDArray[np.float64]:
    """What a view shows of a map ``[c, h, w]``: ``[h, w]``, or ``[c, h, w]`` for ``"rgb"``."""
    if view not in VIEWS:
        raise SpError(f"A view is one of {', '.join(VIEWS)}; got '{view}'.")
    array = np.asarray(values, dtype=np.float64)
    if view == "rgb":
        return array
    return array.sum(0) if view == "signed" else np.abs(array).max(0)


def own_limit(values: ArrayLike, view: str = "signed") -> float:
    """The 99.5 % quantile of the magnitudes, zeros left out, of what the view shows; 0 for a zero map."""
    shown = np.abs(reduced(values, view))
    there = shown[np.isfinite(shown) & (shown > 0)]
    return float(np.quantile(there, QUANTILE)) if there.size else 0.0


def scales(maps: Mapping[str, ArrayLike], view: str = "signed", shared: bool = True) -> dict[str, Scale]:
    """One scale for all maps, or each its own.

    On a shared scale a map that would hardly be seen (under 15 % of the limit) is multiplied by a round number, which
    its :class:`Scale` names: the maps stay comparable, and none is blank only because another is large.

    >>> found = scales({"a": np.full((1, 2, 2), 8.0), "b": np.full((1, 2, 2), 0.02)})
    >>> found["a"], found["b"]
    (Scale(limit=8.0, gain=1), Scale(limit=0.04, gain=200))
    """
    limits = {name: own_limit(values, view) for name, values in maps.items()}
    top = max(limits.values(), default=0.0)
    found = {}
    for name, limit in limits.items():
        if not shared:
            found[name] = Scale(limit)
        elif 0 < limit < 0.15 * top:
            ten = 10 ** math.floor(math.log10(top / limit))
            gain = max(step * ten for step in (1, 2, 5) if step * ten <= top / limit)
            found[name] = Scale(top / gain, gain)
        else:
            found[name] = Scale(top)
    return found


def picture(values: ArrayLike, view: str = "signed", scale: Scale | None = None) -> Image.Image:
    """A map ``[c, h, w]`` as a picture of its own size. Zero is near white (signed), mid grey (RGB) or dark (absolute).

    Values that are not numbers are mid grey.
    """
    shown = reduced(values, view)
    limit = (scale.limit if scale else own_limit(values, view)) or 1.0
    if view == "signed":
        return Image.fromarray(colour.diverging(shown, limit))
    if view == "absolute":
        return Image.fromarray(colour.sequential(shown, 0.0, limit))
    planes = shown[:3] if shown.shape[0] >= 3 else np.repeat(shown[:1], 3, axis=0)
    grey = np.nan_to_num(0.5 + 0.5 * planes / limit, nan=0.5).clip(0, 1)
    return Image.fromarray((grey.transpose(1, 2, 0) * 255).round().astype(np.uint8))


def window(maps: Sequence[ArrayLike], margin: int = 6) -> tuple[int, int, int, int] | None:
    """The square part of the image where the maps ``[c, h, w]`` are not zero: ``(left, top, right, bottom)``.

    None where that is more than two thirds of the image's shorter side, or nothing: then there is no point in zooming.
    """
    there = np.any([np.any(np.asarray(values) != 0, axis=0) for values in maps], axis=0)
    height, width = there.shape
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if not rows.size:
        return None
    side = int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1 + 2 * margin
    if side > 2 / 3 * min(height, width):
        return None
    top = min(max(int(rows[0] + rows[-1] + 1 - side) // 2, 0), height - side)
    left = min(max(int(columns[0] + columns[-1] + 1 - side) // 2, 0), width - side)
    return left, top, left + side, top + side


def overlay(image: Image.Image, values: ArrayLike, limit: float | None = None) -> Image.Image:
    """A map ``[1, h, w]`` or ``[h, w]`` laid over the grey image: colourless where the map is zero.

    Positive is red; negative, if there is any, blue. ``limit`` is where the colour is full.
    """
    shown = np.asarray(values, dtype=np.float64).reshape(-1, *np.asarray(values).shape[-2:]).sum(0)
    limit = limit or own_limit(shown[None], "signed") or 1.0
    height, width = shown.shape
    back = np.asarray(image.convert("L").resize((width, height)), dtype=np.float64)[..., None] * 0.85 + 38.0
    share = np.nan_to_num(np.abs(shown) / limit, nan=0.0).clip(0, 1)[..., None]
    full = colour.diverging(np.sign(np.nan_to_num(shown)) * 0.75, 1.0)
    mixed = back * (1 - 0.8 * share) + full * 0.8 * share
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def bar(view: str = "signed", width: int = 256, height: int = 12) -> Image.Image:
    """The scale's colours from its low to its high end: -limit to limit, or 0 to limit for ``"absolute"``."""
    values = np.linspace(0.0 if view == "absolute" else -1.0, 1.0, width)[None, None].repeat(height, axis=1)
    return picture(values, view, Scale(1.0))


def short(value: float) -> str:
    """Three digits, without an exponent where that can be: ``"0.12"``, ``"1084"``."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def ends(view: str, scale: Scale) -> str:
    """What the ends of the scale mean, in words: ``"blue -0.12 · white 0 · red 0.12 (shown ×100)"``."""
    value = short(scale.limit)
    gain = f" (shown ×{scale.gain:,})" if scale.gain > 1 else ""
    if view == "absolute":
        return f"dark 0 · yellow {value}{gain}"
    if view == "rgb":
        return f"dark -{value} · grey 0 · bright {value}{gain}"
    return f"blue -{value} · white 0 · red {value}{gain}"


def side_by_side(pictures: Sequence[Image.Image], gap: int = 6) -> Image.Image:
    """Pictures in a row on a transparent ground, as high as the highest."""
    height = max(picture.height for picture in pictures)
    whole = Image.new("RGBA", (sum(p.width for p in pictures) + gap * (len(pictures) - 1), height), (0, 0, 0, 0))
    left = 0
    for one in pictures:
        whole.paste(one.convert("RGBA"), (left, 0))
        left += one.width + gap
    return whole


def curves(found: Curves) -> Any:
    """Insertion and deletion as a plotly figure: full lines in the map's order, dotted ones in random order."""
    import plotly.graph_objects as go

    fraction = [float(value) for value in found.fraction]
    figure = go.Figure()
    rows = [
        ("insertion", found.insertion, found.insertion_score, 0, "solid"),
        ("deletion", found.deletion, found.deletion_score, 5, "solid"),
        ("insertion, random order", found.random_insertion, found.random_insertion_score, 0, "dot"),
        ("deletion, random order", found.random_deletion, found.random_deletion_score, 5, "dot"),
    ]
    for name, values, score, shade, dash in rows:
        figure.add_scatter(
            x=fraction,
            y=[float(value) for value in values],
            name=f"{name}: {score:.2f}",
            line={"color": colour.QUALITATIVE[shade], "dash": dash, "width": 3 if dash == "solid" else 2},
            mode="lines",
        )
    figure.update_xaxes(title="share of pixels", range=[0, 1], tickformat=".0%")
    figure.update_yaxes(title=found.unit, rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": -0.3, "x": 0}, font_size=14)
    return figure
