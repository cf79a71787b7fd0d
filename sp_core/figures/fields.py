"""Pictures of receptive fields: on the image, against depth, and measured."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from sp_core.effective_field import EffectiveField
from sp_core.figures.colour import QUALITATIVE, sequential
from sp_core.network import Network
from sp_core.receptive_field import Box, Nested, ReceptiveField, pair

GREY = "rgba(128,128,128,0.9)"


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _outline(box: Box) -> tuple[list[float], list[float]]:
    """Corners as plotly's x and y; pixel (0, 0) covers −0.5 to 0.5."""
    left, right, top, bottom = box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5
    return [left, right, right, left, left], [top, top, bottom, bottom, top]


def _depth_colours(count: int) -> list[str]:
    table = sequential(np.linspace(0.05, 0.95, max(count, 1)), 0, 1)
    return [f"rgb({r},{g},{b})" for r, g, b in table.tolist()]


def _words(extent: float | tuple[float, float]) -> str:
    return "×".join(f"{value:g}" for value in extent) if isinstance(extent, tuple) else f"{extent:g}"


def pixels(field: ReceptiveField) -> str:
    """``"43 × 43 pixels"``, or what it is instead: ``"whole image"``, however large that is."""
    if field.status == "unavailable":
        return "nothing of the image"
    if field.status == "whole image" and field.per_channel is None:
        return "whole image"
    height, width = pair(field.size)
    return f"{height:g} × {width:g} pixels"


def by_channel(field: ReceptiveField) -> str:
    """How many channels see how much, as a sentence; empty where all see the same.

    >>> by_channel(ReceptiveField(5, 1, 0, per_channel=(3, 3, 5)))
    '2 channels see 3 × 3 pixels, 1 sees 5 × 5.'
    """
    counts = Counter(pair(size) for size in field.per_channel or ())
    if len(counts) < 2:
        return ""
    rows = [(f"{size[0]:g} × {size[1]:g}", count) for size, count in sorted(counts.items())]
    if len(rows) > 4:
        return f"{sum(counts.values())} channels see {len(rows)} sizes from {rows[0][0]} to {rows[-1][0]} pixels."
    words = [f"{count} {'sees' if count == 1 else 'see'} {size}" for size, count in rows]
    first = f"{rows[0][1]} {'channel sees' if rows[0][1] == 1 else 'channels see'} {rows[0][0]} pixels"
    return ", ".join([first, *words[1:]]) + "."


def differ(local: Mapping[str, ReceptiveField], strict: Mapping[str, ReceptiveField]) -> bool:
    """Whether gates (or statistics of whole maps) make any field larger when they are counted."""
    return any(pair(field.size) != pair(strict[name].size) for name, field in local.items())


def _least(field: ReceptiveField) -> int:
    return int(min(min(pair(size)) for size in field.per_channel or (field.size,)))


def sentence(field: ReceptiveField, input_size: tuple[int, int, int]) -> str:
    """How the field compares with the image, and what the numbers leave out."""
    if field.status == "whole image":
        words = "However large the image is, this unit sees all of it."
    else:
        larger = [side > image for side, image in zip(pair(field.size), input_size[1:], strict=True)]
        words = (
            f"Neighbouring units look {_words(field.stride)} pixels further; unit 0 starts at {_words(field.start)}."
        )
        if any(larger):
            words += f" The field is larger than the image of {input_size[1]} × {input_size[2]}."
    return " ".join(part for part in (by_channel(field), words, field.note) if part)


def outgrown(fields: Mapping[str, ReceptiveField], net: Network) -> str:
    """Where the field outgrows the image, as a sentence."""
    for name, field in fields.items():
        if max(pair(field.size)) > max(net.input_size[1:]) or field.status == "whole image":
            return f"From {name} on the field is as large as the image ({max(net.input_size[1:])} pixels) or larger."
    return f"No field is larger than the image ({max(net.input_size[1:])} pixels)."


def table(
    net: Network, fields: Mapping[str, ReceptiveField], strict: Mapping[str, ReceptiveField] | None = None
) -> list[dict[str, str]]:
    """One row a layer, in words: size (and with gates counted, where ``strict`` is given), stride, start, status …"""
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "output": "×".join(map(str, layer.output_shape)),
            "size": _words(fields[layer.name].size),
            **({"size, gates counted": _words(strict[layer.name].size)} if strict else {}),
            "stride": _words(fields[layer.name].stride),
            "start": _words(fields[layer.name].start),
            "least over channels": str(_least(fields[layer.name])) if fields[layer.name].per_channel else "",
            "status": fields[layer.name].status,
            "note": fields[layer.name].note,
        }
        for layer in net.layers
    ]


def nested(picture: Image.Image, steps: Sequence[Nested]) -> Any:
    """The fields of ``steps`` drawn on ``picture``, what the network sees, from the first layer to the last.

    One rectangle a layer, dark violet for the first and yellow for the last; the last one is emphasised, and what of
    it lies outside the image (padding: the unit is told zeros there) is hatched. A play button draws it growing.

    >>> from sp_core.receptive_field import UnitField
    >>> step = Nested("conv1", (0, 0), UnitField(Box(0, 5, 0, 5), Box(-2, 5, -2, 5)), 7, False)
    >>> len(nested(Image.new("RGB", (8, 8)), [step]).frames)
    1
    """
    width, height = picture.size
    colours = _depth_colours(len(steps))
    figure = go.Figure()
    figure.add_layout_image(
        source=_uri(picture), x=-0.5, y=-0.5, sizex=width, sizey=height, xref="x", yref="y", layer="below",
        sizing="stretch",
    )  # fmt: skip
    for step, colour in zip(steps, colours, strict=True):
        x, y = _outline(step.field.unclipped)
        figure.add_scatter(  # a pale rim, so that a dark line is seen on a dark picture
            x=x, y=y, mode="lines", line={"color": "rgba(255,255,255,0.6)", "width": 5}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
        label = f"{step.layer}: {_words(step.size)} pixels" + (", the whole image" if step.whole else "")
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour, "width": 2}, name=label, hoverinfo="name", showlegend=False
        )
    current = 2 * len(steps)
    for trace in _emphasised(steps[-1], (height, width), colours[-1]):
        figure.add_trace(trace)
    figure.frames = [
        go.Frame(
            name=step.layer,
            data=_emphasised(step, (height, width), colour),
            traces=[current, current + 1],
            layout={"title": {"text": f"{step.layer} · {_words(step.size)} pixels"}},
        )
        for step, colour in zip(steps, colours, strict=True)
    ]
    _frame(figure, [step.field.unclipped for step in steps], height, width)
    figure.update_layout(
        title={"text": f"{steps[-1].layer} · {_words(steps[-1].size)} pixels", "font": {"size": 18}},
        updatemenus=[_play(len(steps))],
        height=640,
        margin_b=120,
    )
    return figure


def _emphasised(step: Nested, image: tuple[int, int], colour: str) -> list[Any]:
    """The field of one step: hatched outside the image, light inside it."""
    box = step.field.unclipped
    x, y = _outline(box)
    inside = box.clip(*image)
    ring_x, ring_y = list(x), list(y)
    if not inside.is_empty:
        hole_x, hole_y = _outline(inside)
        ring_x, ring_y = [*x, None, *reversed(hole_x)], [*y, None, *reversed(hole_y)]  # type: ignore[list-item]
    outside = inside != box
    hatch = go.Scatter(
        x=ring_x if outside else [None], y=ring_y if outside else [None], mode="lines", line_width=0, fill="toself",
        fillpattern={"shape": "/", "fgcolor": GREY, "bgcolor": "rgba(0,0,0,0)", "size": 9, "solidity": 0.25},
        fillcolor="rgba(0,0,0,0)", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    edge = go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 5}, hoverinfo="skip", showlegend=False)
    return [hatch, edge]


def _frame(figure: Any, boxes: Sequence[Box], height: int, width: int) -> None:
    """Equal axes that hold the image and the fields, but no more than one image around it."""
    top = max(min([0, *(box.y0 for box in boxes)]), -height) - 4
    left = max(min([0, *(box.x0 for box in boxes)]), -width) - 4
    bottom = min(max([height, *(box.y1 for box in boxes)]), 2 * height) + 4
    right = min(max([width, *(box.x1 for box in boxes)]), 2 * width) + 4
    figure.update_xaxes(range=[left, right], showgrid=False, zeroline=False, title="pixel column", constrain="domain")
    figure.update_yaxes(
        range=[bottom, top], showgrid=False, zeroline=False, title="pixel row", scaleanchor="x", constrain="domain",
        constraintoward="top",  # on a narrow screen what is over lies below, not between the title and the picture
    )  # fmt: skip


def _play(count: int) -> dict[str, Any]:
    pause = max(80, min(700, 6000 // max(count, 1)))
    timing = {"frame": {"duration": pause, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": False}
    stop = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate"}
    return {
        "type": "buttons",
        "direction": "left",
        "x": 0,
        "y": -0.14,
        "xanchor": "left",
        "yanchor": "top",
        "showactive": False,  # the active button of plotly is light in the dark theme, too
        "bgcolor": "rgba(128,128,128,0.15)",
        "buttons": [
            {"label": "▶ Grow", "method": "animate", "args": [None, timing]},
            {"label": "■ Stop", "method": "animate", "args": [[None], stop]},
        ],
    }


def growth(
    fields: Mapping[str, ReceptiveField],
    image: tuple[int, int],
    chosen: str | None = None,
    strict: Mapping[str, ReceptiveField] | None = None,
) -> Any:
    """Size of the field against depth, with the image's size as a line: where the field outgrows the image.

    ``fields`` in execution order; layers that see the whole image are drawn at its size. The larger of the two axes is
    drawn; the band reaches down to the channel that sees least. ``strict``: the same layers with gates counted, as a
    second line.
    """
    names = list(fields)
    depth = list(range(1, len(names) + 1))
    largest = [max(pair(rf.size)) for rf in fields.values()]
    least = [min((min(pair(s)) for s in rf.per_channel or (rf.size,)), default=0) for rf in fields.values()]
    figure = go.Figure()
    if any(rf.per_channel for rf in fields.values()):
        figure.add_scatter(x=depth, y=least, mode="lines", line_width=0, hoverinfo="skip", showlegend=False)
        figure.add_scatter(
            x=depth, y=largest, mode="lines", line_width=0, fill="tonexty", fillcolor="rgba(0,114,178,0.25)",
            name="from the channel that sees least to most", hoverinfo="skip",
        )  # fmt: skip
    text = [
        f"{name}<br>{_words(rf.size)} pixels, stride {_words(rf.stride)}<br>{rf.status}" for name, rf in fields.items()
    ]
    figure.add_scatter(
        x=depth, y=largest, mode="lines+markers", line={"color": QUALITATIVE[0], "width": 3}, marker_size=5,
        name="receptive field" if strict is None else "gates held constant", text=text, hoverinfo="text",
    )  # fmt: skip
    if strict is not None:
        figure.add_scatter(
            x=depth, y=[max(pair(strict[name].size)) for name in names], mode="lines",
            line={"color": QUALITATIVE[2], "width": 3, "dash": "dot"}, name="gates counted",
            text=[f"{name}<br>{_words(strict[name].size)} pixels, gates counted" for name in names], hoverinfo="text",
        )  # fmt: skip
    figure.add_hline(
        y=max(image), line={"color": QUALITATIVE[5], "dash": "dash", "width": 2},
        annotation_text=f"the image: {max(image)} pixels", annotation_position="top left",
    )  # fmt: skip
    if chosen is not None and chosen in fields:
        at = names.index(chosen)
        figure.add_scatter(
            x=[depth[at]], y=[largest[at]], mode="markers", marker={"size": 15, "color": QUALITATIVE[1]}, name=chosen,
            hoverinfo="name",
        )  # fmt: skip
    figure.update_xaxes(title="layer, in the order in which they run")
    figure.update_yaxes(title="receptive field, pixels", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.12}, height=420)
    return figure


def measured(field: EffectiveField, enlarge: int = 1) -> Image.Image:
    """The energy of a measured field as a picture: the square root of it, dark violet is none, with its box drawn.

    The square root is the size of the gradient: with the energy itself hardly more than the middle could be seen.
    """
    root = np.sqrt(field.energy.numpy())
    tile = sequential(root, 0.0, float(root.max()))
    enlarged = np.repeat(np.repeat(tile, enlarge, 0), enlarge, 1)
    top, bottom = field.box.y0 * enlarge, field.box.y1 * enlarge - 1
    left, right = field.box.x0 * enlarge, field.box.x1 * enlarge - 1
    if not field.box.is_empty:
        enlarged[[top, bottom], left : right + 1] = 255
        enlarged[top : bottom + 1, [left, right]] = 255
    return Image.fromarray(enlarged)


def energy(field: EffectiveField) -> str:
    """How concentrated a measured field is, as a sentence."""
    return (
        f"95 % of the energy is in {field.pixels:,} pixels, {field.share:.0%} of the theoretical field in the image "
        f"(white). A Gaussian of σ {field.sigma[0]:.1f} × {field.sigma[1]:.1f} pixels explains "
        f"{max(field.fit, 0):.0%} of it."
    )


def profile(fields: Mapping[str, EffectiveField]) -> Any:
    """Measured fields (name → field) along x through all rows, each scaled to its peak, with the Gaussian of its σ."""
    figure = go.Figure()
    for (name, field), colour in zip(fields.items(), QUALITATIVE, strict=False):
        line = field.energy.sum(0).numpy()
        x = np.arange(len(line))
        gaussian = np.exp(-((x - field.centre[1]) ** 2) / (2 * max(field.sigma[1], 1e-9) ** 2))
        # The curve of the same σ and area: its peak beside that of the measured one.
        gaussian = gaussian * line.sum() / max(gaussian.sum(), 1e-12)
        figure.add_scatter(x=x, y=line, mode="lines", line={"color": colour, "width": 3}, name=name)
        figure.add_scatter(
            x=x, y=gaussian, mode="lines", line={"color": colour, "width": 2, "dash": "dot"},
            name=f"Gaussian, σ = {field.sigma[1]:.1f} pixels",
        )  # fmt: skip
    if fields:
        box = next(iter(fields.values())).box
        for edge in (box.x0 - 0.5, box.x1 - 0.5):
            figure.add_vline(x=edge, line={"color": GREY, "dash": "dash"})
    figure.update_xaxes(title="pixel column (dashed: the theoretical field)")
    figure.update_yaxes(title="share of the gradient's energy", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.2}, height=360)
    return figure


def still(picture: Image.Image, steps: Sequence[Nested], enlarge: int = 3) -> Image.Image:
    """The nested fields as a plain picture for download, on a grey margin that stands for the padding."""
    from PIL import ImageDraw

    boxes = [step.field.unclipped for step in steps]
    pad = [max(0, -min(b.x0 for b in boxes)), max(0, -min(b.y0 for b in boxes))]
    pad += [max(0, max(b.x1 for b in boxes) - picture.width), max(0, max(b.y1 for b in boxes) - picture.height)]
    pad = [min(side, max(picture.size)) for side in pad]
    wide = Image.new("RGB", (picture.width + pad[0] + pad[2], picture.height + pad[1] + pad[3]), (110, 110, 110))
    wide.paste(picture.convert("RGB"), (pad[0], pad[1]))
    wide = wide.resize((wide.width * enlarge, wide.height * enlarge), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(wide)
    for box, colour in zip(boxes, _depth_colours(len(steps)), strict=True):
        left, top = (box.x0 + pad[0]) * enlarge, (box.y0 + pad[1]) * enlarge
        draw.rectangle([left, top, (box.x1 + pad[0]) * enlarge - 1, (box.y1 + pad[1]) * enlarge - 1], None, colour, 3)
    return wide
