"""Neighbours as rows of pictures, and the agreement of neighbours' classes over depth as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from sp_core.figures.colour import QUALITATIVE
from sp_core.figures.maps import short
from sp_core.nearest import PIXELS, Agreement, Neighbours


def thumbnail(picture: Image.Image, side: int = 112) -> Image.Image:
    """A picture fitted into a square of ``side`` pixels: small ones are enlarged pixel by pixel.

    >>> thumbnail(Image.new("RGB", (32, 16)), 100).size
    (96, 48)
    """
    zoom = side // max(picture.size)
    if zoom >= 1:
        return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def grid(rows: Sequence[Sequence[Image.Image]], side: int = 112, gap: int = 4) -> Image.Image:
    """Rows of pictures as one, each in a square of ``side`` pixels, on white."""
    columns = max((len(row) for row in rows), default=1)
    whole = Image.new("RGB", (columns * (side + gap) - gap, max(len(rows), 1) * (side + gap) - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            small = thumbnail(picture, side)
            left, top = (side - small.width) // 2, (side - small.height) // 2
            whole.paste(small.convert("RGB"), (x * (side + gap) + left, y * (side + gap) + top))
    return whole


def caption(found: Neighbours, index: int, classes: Sequence[str]) -> str:
    """What stands below a neighbour: its class (where known) and its distance."""
    label, distance = found.labels[index], found.distances[index]
    name = classes[label] if 0 <= label < len(classes) else f"image {found.images[index]}"
    return f"{name} · {short(distance)}"


def table(rows: Sequence[Neighbours], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row a neighbour, for CSV and JSON."""
    return [
        {
            "space": found.space,
            "metric": found.metric,
            "rank": rank + 1,
            "image": image,
            "class": classes[label] if 0 <= label < len(classes) else "",
            "distance": distance,
        }
        for found in rows
        for rank, (image, label, distance) in enumerate(zip(found.images, found.labels, found.distances, strict=True))
    ]


def curve(rows: Sequence[Agreement]) -> Any:
    """Accuracy and share over depth, pixels first, with chance dotted."""
    import plotly.graph_objects as go

    names = [row.space for row in rows]
    figure = go.Figure()
    for name, values, colour in (
        (f"right by vote of {rows[0].k}", [row.accuracy for row in rows], QUALITATIVE[0]),
        ("neighbours of the same class", [row.share for row in rows], QUALITATIVE[1]),
    ):
        figure.add_scatter(
            x=names, y=values, name=name, mode="lines+markers", line={"color": colour, "width": 3}, marker_size=8
        )
    figure.add_scatter(
        x=names,
        y=[row.chance for row in rows],
        name="same class by chance",
        mode="lines",
        line={"color": "grey", "dash": "dot"},
    )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="share of images")
    figure.update_xaxes(title="pixels, then layers in order of depth", type="category")
    figure.update_layout(legend={"orientation": "h", "y": 1.15, "x": 0})
    return figure


def sentence(rows: Sequence[Agreement]) -> str:
    """Pixels against the best layer, in words."""
    pixels = next(row for row in rows if row.space == PIXELS)
    best = max(rows, key=lambda row: row.accuracy)
    if best.space == PIXELS:
        return f"No layer does better than pixels, where {pixels.accuracy:.0%} of {pixels.images:,} images are right."
    return (
        f"Left out in turn, {pixels.accuracy:.0%} of {pixels.images:,} images are put into their class by their "
        f"neighbours in pixels, and {best.accuracy:.0%} by those in {best.space}."
    )
