"""Sheets of patches, a channel a row, and the class profile of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from sp_core.figures.colour import QUALITATIVE
from sp_core.figures.sprite import Sprite, make_sprite
from sp_core.patches import Patch, view

INK, PAPER = (255, 255, 255), (68, 68, 68)  # of the row labels: readable on light and dark pages


def channels_sheet(
    net: Any,
    images: Any,
    rows: Sequence[Sequence[Patch]],
    labels: Sequence[str],
    *,
    size: int,
    columns: int = 9,
    guided: bool = False,
) -> Sprite:
    """The patches of some channels of one layer, a channel a row, cut from ``images`` or under guided backprop.

    ``size`` is the longest side of a tile in pixels. All tiles are cut to the largest field of these patches.
    """
    every = [patch for row in rows for patch in row]
    if guided:
        tiles = view.tiles(view.paint(view.signals(net, images, every)), every, size)
    else:
        tiles = view.cut(images, every, net, size)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    return sheet(np.split(tiles, ends), labels, columns)


def portraits(net: Any, images: Any, patches: Sequence[Patch], *, size: int, guided: bool = False) -> list[Image.Image]:
    """The patches one by one, at most ``size`` pixels; with ``guided`` each above itself under guided backprop."""
    tiles = view.cut(images, patches, net, size)
    if guided:
        other = view.tiles(view.paint(view.signals(net, images, patches)), patches, size)
        tiles = np.concatenate([tiles, other], axis=1)
    return [Image.fromarray(tile) for tile in tiles]


def words(
    rows: Sequence[Sequence[Patch]], labels: Sequence[str], classes: Sequence[str], columns: int = 9
) -> list[str]:
    """One line a tile of :func:`channels_sheet`, for reading out."""
    lines = []
    for row, label in zip(rows, labels, strict=True):
        lines += [label, *(f"{label}, {say(patch, classes)}" for patch in row)]
        lines += [f"{label}: no more images"] * (columns - len(row))
    return lines


def say(patch: Patch, classes: Sequence[str]) -> str:
    """A patch in words: activation, percentile, image, class."""
    name = f", {classes[patch.label]}" if 0 <= patch.label < len(classes) else ""
    return f"activation {patch.activation:.3g}, percentile {patch.percentile:.4g}, image {patch.image}{name}"


def sheet(rows: Sequence[NDArray[np.uint8]], labels: Sequence[str], columns: int, gap: int = 2) -> Sprite:
    """One row of tiles a channel, with its label in front: tiles ``uint8 [≤ columns, h, w, 3]`` of one size.

    Tile ``i`` of the sprite belongs to row ``i // (columns + 1)``; a row with fewer patches ends in grey tiles.

    >>> sheet([np.zeros((2, 48, 48, 3), np.uint8)], ["7"], columns=3).count
    4
    """
    height, width = rows[0].shape[1:3]
    blank = np.full((1, height, width, 3), 128, np.uint8)
    parts: list[NDArray[np.uint8]] = []
    for tiles, label in zip(rows, labels, strict=True):
        parts += [_label(label, height, width)[None], tiles, *[blank] * (columns - len(tiles))]
    return make_sprite(np.concatenate(parts), columns=columns + 1, gap=gap)


def _label(text: str, height: int, width: int) -> NDArray[np.uint8]:
    image = Image.new("RGB", (width, height), PAPER)
    size = max(8, min(height // 3, int(width / (0.62 * max(len(text), 2)))))
    ImageDraw.Draw(image).text((width / 2, height / 2), text, INK, ImageFont.load_default(size), anchor="mm")
    return np.asarray(image)


def class_profile(means: ArrayLike, classes: Sequence[str], most: int = 20) -> Any:
    """A plotly figure: the mean of a channel's spatial maximum for each class, strongest first, at most ``most``.

    Classes without images (NaN) are left out.

    >>> len(class_profile([0.5, float("nan"), 2.0], ["a", "b", "c"]).data[0].x)
    2
    """
    values = np.asarray(means, dtype=np.float64)
    order = [int(i) for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])][:most]
    names = [classes[i] if len(classes[i]) <= 28 else classes[i][:27] + "…" for i in order]
    bars = go.Bar(
        x=values[order],
        y=list(range(len(order))),
        orientation="h",
        marker_color=QUALITATIVE[0],
        hovertext=[f"{classes[i]}: {values[i]:.3g}" for i in order],
        hoverinfo="text",
    )
    figure = go.Figure(bars)
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=names, autorange="reversed", ticksuffix=" ")
    figure.update_xaxes(title="mean of the spatial maximum", zeroline=True)
    figure.update_layout(showlegend=False, bargap=0.25, height=120 + 22 * len(order))
    return figure
