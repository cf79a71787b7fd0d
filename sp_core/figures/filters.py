"""Filters as pictures: a sheet of all of them, one taken apart, and where they lie in orientation and frequency."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image
from torch import Tensor

from sp_core.figures.colour import QUALITATIVE, SEQUENTIAL, diverging, scale, sequential
from sp_core.figures.sprite import Sprite, make_sprite
from sp_core.filters import FilterBank, FilterFacts, opponent, tiles

MOST_ROWS, MOST_COLUMNS = 24, 64  # of [out, in] tiles on one sheet
MOST_LINES, _MOST_POINTS = 256, 20_000  # filters and points of one figure of lines
_RING = {"size": 24, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#e69f00"}}


def sheet(filters: FilterBank, scaling: str = "filter", order: Tensor | None = None) -> Sprite:
    """All filters of an ``rgb`` or ``grey`` bank, in ``order`` (indices) when given.

    >>> import torch
    >>> sheet(FilterBank("conv1", "Conv2d", torch.randn(6, 3, 5, 5), 1, "rgb", True)).count
    6
    """
    pictures = tiles(filters, scaling)
    return make_sprite(pictures if order is None else pictures[order.numpy()])


def kernel_sheet(filters: FilterBank, first_out: int = 0, first_in: int = 0, common: bool = True) -> Sprite:
    """A deeper layer as ``[out, in]`` tiles: one row a filter, one column an input channel, at most 24 × 64 of them.

    Signed: near white is zero, blue negative, red positive; on one scale for the whole layer when ``common``, else
    each filter has its own. A kernel of a deeper layer has no RGB meaning.

    >>> import torch
    >>> kernel_sheet(FilterBank("conv2", "Conv2d", torch.randn(4, 6, 3, 3), 1, "tiles", False)).columns
    6
    """
    if filters.coloured_slices:
        return _colour_slices(filters, first_out, first_in, common)
    weight = filters.weight.numpy()
    part = weight[first_out : first_out + MOST_ROWS, first_in : first_in + MOST_COLUMNS]
    colours = diverging(part, float(np.abs(weight).max())) if common else np.stack([diverging(one) for one in part])
    return make_sprite(colours.reshape(-1, *colours.shape[2:]), columns=part.shape[1])


def _colour_slices(filters: FilterBank, first_out: int, first: int, common: bool) -> Sprite:
    """A Conv3d that reads frames in colour: one row a filter, one column a slice; zero is grey when ``common``."""
    count, _, height, width = filters.weight.shape
    slices = filters.weight.view(count, 3, filters.depth, height, width).permute(0, 2, 3, 4, 1).numpy()
    part = slices[first_out : first_out + MOST_ROWS, first : first + MOST_COLUMNS]
    if common:
        scaled = 128 + 127 * part / (float(np.abs(slices).max()) or 1.0)
    else:
        low, high = part.min((1, 2, 3, 4), keepdims=True), part.max((1, 2, 3, 4), keepdims=True)
        scaled = np.where(high > low, 255 * (part - low) / np.maximum(high - low, 1e-30), 128)
    tiles_ = scaled.round().clip(0, 255).astype(np.uint8)
    return make_sprite(tiles_.reshape(-1, height, width, 3), columns=part.shape[1])


def channels(filters: FilterBank, index: int) -> list[tuple[str, Image.Image]]:
    """One RGB filter's colour and opponent channels, named, signed, all on the filter's own scale.

    >>> import torch
    >>> [name for name, _ in channels(FilterBank("c", "Conv2d", torch.randn(2, 3, 5, 5), 1, "rgb", True), 0)][3:]
    ['luminance', 'red – green', 'blue – yellow']
    """
    kernel = filters.weight[index].double()
    axes = opponent(kernel[None])[0]
    limit = float(max(kernel.abs().max(), axes.abs().max()))
    names = ("red", "green", "blue", "luminance", "red – green", "blue – yellow")
    return [(name, signed(values, limit)) for name, values in zip(names, [*kernel, *axes], strict=True)]


def signed(values: Tensor, limit: float | None = None) -> Image.Image:
    """A signed map ``[h, w]`` as a picture of the same size: near white is zero, blue negative, red positive."""
    return Image.fromarray(diverging(values.detach().cpu().numpy(), limit))


def spectrum(magnitude: Tensor) -> Image.Image:
    """A Fourier magnitude ``[h, w]`` as a picture, dark at 0; zero frequency in the middle."""
    return Image.fromarray(sequential(magnitude.numpy(), 0.0))


def overlay(picture: Image.Image, response: Tensor, limit: float | None = None) -> Image.Image:
    """A response map laid over the picture it answers, stretched to its size; opaque where it is strong.

    Each value is drawn as a block over the pixels that its place in the map stands for: nothing is interpolated.
    """
    values = response.detach().cpu().numpy()
    top = limit or float(np.abs(values).max()) or 1.0
    colours = Image.fromarray(diverging(values, top)).resize(picture.size, Image.Resampling.NEAREST)
    strength = (np.abs(values) / top).clip(0, 1) * 217
    mask = Image.fromarray(strength.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    grey = picture.convert("L").convert("RGB")
    return Image.composite(colours, grey, mask)


def orientation_and_frequency(facts: FilterFacts, chosen: int | None = None) -> Any:
    """Where the oriented filters lie in orientation and spatial frequency; a plotly figure.

    Colour is colourfulness, where there is one; size is the norm. Blobs and dead filters have no place in it. The
    axis is a circle cut open: 0° and 180° are the same orientation.
    """
    keep = (facts.orientation.isfinite() & facts.frequency.isfinite() & ~facts.dead).nonzero()[:, 0]
    colourful = facts.colourfulness[keep]
    known = bool(colourful.isfinite().any())
    marker: dict[str, Any] = {
        "size": (6 + 12 * facts.relative_norm[keep]).numpy(),
        "color": colourful.numpy() if known else QUALITATIVE[0],
        "line": {"width": 0.7, "color": "rgba(128,128,128,0.9)"},
    }
    if known:
        bar = {"thickness": 10, "tickvals": [0, 0.5, 1]}  # what it means stands in the caption: a title takes width
        marker |= {"colorscale": scale(SEQUENTIAL), "cmin": 0, "cmax": 1, "colorbar": bar}
    figure = go.Figure(
        go.Scatter(
            x=facts.orientation[keep].numpy(),
            y=facts.frequency[keep].numpy(),
            mode="markers",
            marker=marker,
            text=[f"filter {int(i)}" for i in keep],
            hovertemplate="%{text}<br>%{x:.0f}°, %{y:.3f} cycles a pixel<extra></extra>",
            showlegend=False,
        )
    )
    if chosen is not None and bool((keep == chosen).any()):
        figure.add_scatter(
            x=[float(facts.orientation[chosen])],
            y=[float(facts.frequency[chosen])],
            mode="markers",
            marker=_RING,
            hoverinfo="skip",
            showlegend=False,
        )
    # The stripes are across the direction in which the values change.
    ticks = {0: "│<br>0°", 45: "╲", 90: "─<br>90°", 135: "╱", 180: "│<br>180°"}  # more does not fit a projector
    names = list(ticks.values())
    figure.update_xaxes(
        title="orientation", range=[-8, 188], tickvals=list(ticks), ticktext=names, zeroline=False, tickangle=0
    )
    figure.update_yaxes(title="cycles a pixel", rangemode="tozero")
    return figure


def columns(filters: FilterBank) -> int:
    """How many columns :func:`kernel_sheet` would have, all shown."""
    return filters.depth if filters.coloured_slices else filters.weight.shape[1]


def column(filters: FilterBank) -> str:
    """What a column of :func:`kernel_sheet` is, as a person would say it."""
    if filters.depth == 1:
        return "an input channel"
    if filters.coloured_slices:
        return "a slice of its kernel, earliest first"
    return f"a slice of its kernel: for each input channel the {filters.depth} slices from front to back"


def frequency_and_norm(facts: FilterFacts, chosen: int | None = None) -> Any:
    """Where the filters of a Conv1d lie in frequency and norm; a plotly figure. Dead filters are left out."""
    keep = (facts.frequency.isfinite() & ~facts.dead).nonzero()[:, 0]
    figure = go.Figure(
        go.Scatter(
            x=facts.frequency[keep].numpy(),
            y=facts.relative_norm[keep].numpy(),
            mode="markers",
            marker={"size": 9, "color": QUALITATIVE[0], "opacity": 0.8},
            text=[f"filter {int(i)}" for i in keep],
            hovertemplate="%{text}<br>%{x:.3f} cycles a sample<extra></extra>",
        )
    )
    if chosen is not None and bool((keep == chosen).any()):
        x, y = float(facts.frequency[chosen]), float(facts.relative_norm[chosen])
        figure.add_scatter(x=[x], y=[y], mode="markers", marker=_RING, hoverinfo="skip")
    figure.update_xaxes(title="cycles a sample", range=[-0.02, 0.52])
    figure.update_yaxes(title="norm / largest norm", range=[0, 1.08])
    figure.update_layout(showlegend=False)
    return figure


def _grid(count: int) -> int:
    """Columns of the grid of lines."""
    return max(1, math.ceil(math.sqrt(1.6 * count)))


def lines_height(filters: FilterBank) -> int:
    """How high :func:`lines` is to be drawn, in CSS pixels."""
    shown = min(filters.count, MOST_LINES)
    return max(180, min(900, 60 + 84 * math.ceil(shown / _grid(shown))))


def lines(filters: FilterBank, facts: FilterFacts, order: Tensor | None = None, chosen: int | None = None) -> Any:
    """The filters of a Conv1d as lines in a grid: all input channels thin, the main pattern thick, one trace each.

    In ``order`` (indices) when given; at most 256. All lines are scaled by the layer's largest weight, so that faint
    filters look faint; the main pattern (``FilterFacts.pattern``), which sums up the input channels, is scaled by the
    layer's largest such pattern.
    """
    index = (torch.arange(filters.count) if order is None else order)[:MOST_LINES]
    weight, pattern = filters.weight[index].numpy(), facts.pattern[index, 0].numpy()
    across = _grid(len(weight))
    channels = min(weight.shape[1], max(1, _MOST_POINTS // max(1, len(weight) * weight.shape[2])))
    thin = weight[:, :channels] / (float(filters.weight.abs().max()) or 1.0)
    thick = pattern[:, None] / (float(facts.pattern.abs().max()) or 1.0)
    figure = go.Figure()
    for group, colour, width in ((thin, "rgba(128,128,128,0.45)", 1), (thick, QUALITATIVE[0], 2.5)):
        x, y, places = _cells(group, across)
        names = [f"filter {int(index[place])}" for place in places]
        line = {"color": colour, "width": width}
        figure.add_scatter(x=x, y=y, text=names, hoverinfo="text", mode="lines", line=line)
    if chosen is not None and bool((index == chosen).any()):
        row, column = divmod(int((index == chosen).nonzero()[0, 0]), across)
        edges = {"x0": column - 0.48, "x1": column + 0.48, "y0": -row - 0.48, "y1": -row + 0.48}
        figure.add_shape(type="rect", **edges, line={"color": "#e69f00", "width": 3})
    figure.update_xaxes(visible=False, range=[-0.52, across - 0.48])
    figure.update_yaxes(visible=False, range=[0.52 - math.ceil(len(weight) / across), 0.52])
    figure.update_layout(showlegend=False, margin={"l": 4, "b": 10})
    return figure


def _cells(groups: np.ndarray, across: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Lines ``[cells, lines, points]`` in [-1, 1] laid out in a grid, a gap after each; and the cell of each point."""
    count, number, length = groups.shape
    row, column = np.divmod(np.arange(count), across)
    gap = np.full((count, number, 1), np.nan)
    along = np.broadcast_to(np.linspace(-0.42, 0.42, length), groups.shape)
    x = np.concatenate([column[:, None, None] + along, gap], axis=2).reshape(-1)
    y = np.concatenate([0.42 * groups - row[:, None, None], gap], axis=2).reshape(-1)
    return x, y, [cell for cell in range(count) for _ in range(number * (length + 1))]


def taps(filters: FilterBank, index: int, most: int = 12) -> Any:
    """One Conv1d filter: its weights against position, a line for each of its strongest input channels, in order."""
    weight = filters.weight[index]
    strongest = sorted(weight.norm(dim=1).argsort(descending=True)[:most].tolist())
    colours = [f"rgb({r},{g},{b})" for r, g, b in sequential(np.linspace(0, 0.9, len(strongest)), 0.0, 1.0)]
    figure = go.Figure()
    for colour, channel in zip(colours, strongest, strict=True):
        values = weight[channel].numpy()
        figure.add_scatter(y=values, name=f"input {channel}", mode="lines+markers", line={"color": colour})
    figure.update_xaxes(title="position")
    figure.update_yaxes(title="weight", zeroline=True)
    if len(strongest) < len(weight):
        figure.update_layout(legend_title_text=f"the strongest {most}<br>of {len(weight)}")
    return figure
