"""Feature maps as pictures: all channels of a layer as one sprite, one map over the image, a vector as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sp_core.feature_maps import FeatureMaps, Scaling
from sp_core.figures import colour, maps
from sp_core.figures.sprite import Sprite, make_sprite
from sp_core.receptive_field import Box

WIDTH, AREA = 720, 720 * 900  # CSS pixels of a sheet: how wide, and how many for all tiles
SMALLEST = 8  # pixels of a tile
FINER = 1.5  # pixels sent for each that is shown, for sharp screens


def sheet(found: FeatureMaps, scaling: Scaling = "map", order: Tensor | None = None) -> tuple[Sprite, int]:
    """All maps as one sprite, and the width in CSS pixels at which to show it.

    Signed maps are blue below 0, white at 0 and red above; the others run from dark violet at 0 to yellow. Maps with
    more pixels than the sheet has room for are averaged in squares.

    >>> found = FeatureMaps("relu", torch.rand(8, 4, 4), (8, 8))
    >>> sprite, width = sheet(found)
    >>> sprite.count, sprite.tile, width % sprite.image.width
    (8, (8, 8), 0)
    """
    values, limits = found.values, found.limits(scaling)
    if order is not None:
        values, limits = values[order], limits[order]
    side = min(WIDTH, math.sqrt(AREA / len(values)))  # CSS pixels that a tile may take each way
    step = math.ceil(max(values.shape[1:]) / (FINER * max(side, 8)))
    if step > 1:
        values = torch.nn.functional.avg_pool2d(values[None], step, ceil_mode=True)[0]
    tiles = _colours((values / limits[:, None, None]).numpy(), found.signed)
    grown = max(1, SMALLEST // max(tiles.shape[1:3]))  # or the gaps would be as wide as the tiles
    tiles = tiles.repeat(grown, axis=1).repeat(grown, axis=2)
    pitch = tiles.shape[2] + 1
    zoom = max(1, int(side // (max(tiles.shape[1:3]) + 1)))
    room = int(WIDTH * FINER) if step > 1 else WIDTH
    made = make_sprite(tiles, columns=max(1, min(len(values), room // (zoom * pitch))), gap=1)
    return made, min(WIDTH, made.image.width) if step > 1 else made.image.width * zoom


def _colours(values: Any, signed: bool) -> Any:
    return colour.diverging(values, 1.0) if signed else colour.sequential(values, 0.0, 1.0)


def alone(found: FeatureMaps, channel: int, limit: float) -> Image.Image:
    """One map as a picture of its own size."""
    return Image.fromarray(_colours(found.values[channel].numpy() / limit, found.signed))


def over(
    picture: Image.Image, found: FeatureMaps, channel: int, limit: float, box: Box, enlarge: int = 1
) -> Image.Image:
    """A map laid over the grey picture where its units look, with the field of its largest value framed.

    ``picture`` is what the network sees; ``box`` is that field, clipped to it; nothing is framed where it is empty.
    """
    laid = maps.overlay(picture, found.over_image(channel).numpy(), limit)
    laid = laid.resize((laid.width * enlarge, laid.height * enlarge), Image.Resampling.NEAREST)
    return frame(laid, box, enlarge)


def frame(picture: Image.Image, box: Box, enlarge: int = 1) -> Image.Image:
    """``picture`` with ``box`` (in its pixels before it was enlarged) framed: white in black, seen on any ground."""
    if box.is_empty:
        return picture
    framed = picture.copy()
    corners = [box.x0 * enlarge, box.y0 * enlarge, box.x1 * enlarge - 1, box.y1 * enlarge - 1]
    pen = ImageDraw.Draw(framed)
    pen.rectangle(corners, outline="black", width=4)
    if min(corners[2] - corners[0], corners[3] - corners[1]) > 8:
        pen.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], outline="white", width=2)
    return framed


def ends(found: FeatureMaps, limit: float) -> str:
    """What the ends of a map's colours mean."""
    value = maps.short(limit)
    return f"blue -{value} · white 0 · red {value}" if found.signed else f"dark 0 · yellow {value}"


def bars(values: Tensor, order: Tensor, names: Sequence[str], chosen: int | None = None) -> Any:
    """A vector as a plotly figure: one bar an element in the order given, its name under the cursor."""
    import plotly.graph_objects as go

    numbers = order.tolist()
    colours = np.where(values[order].numpy() < 0, colour.QUALITATIVE[0], colour.QUALITATIVE[5]).tolist()
    if chosen is not None and chosen in numbers:
        colours[numbers.index(chosen)] = colour.QUALITATIVE[1]
    figure = go.Figure(
        go.Bar(
            x=list(range(len(numbers))),
            y=values[order].tolist(),
            marker={"color": colours, "line_width": 0},
            hovertext=[names[i] for i in numbers],
            hoverinfo="text+y",
        )
    )
    figure.update_xaxes(title="element, in the chosen order")
    figure.update_yaxes(title="value")
    figure.update_layout(bargap=0, showlegend=False)
    return figure
