"""Filters as pictures: a sheet of all of them, one taken apart, and where they lie in orientation and frequency."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from sp_core.figures.colour import QUALITATIVE, SEQUENTIAL, diverging, scale, sequential
from sp_core.figures.sprite import Sprite, make_sprite
from sp_core.filters import FilterBank, FilterFacts, opponent, tiles

MOST_ROWS, MOST_COLUMNS = 24, 64  # of [out, in] tiles on one sheet


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
    weight = filters.weight.numpy()
    part = weight[first_out : first_out + MOST_ROWS, first_in : first_in + MOST_COLUMNS]
    colours = diverging(part, float(np.abs(weight).max())) if common else np.stack([diverging(one) for one in part])
    return make_sprite(colours.reshape(-1, *colours.shape[2:]), columns=part.shape[1])


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
            marker={"size": 24, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#e69f00"}},
            hoverinfo="skip",
            showlegend=False,
        )
    # The stripes are across the direction in which the values change.
    ticks = {0: "│<br>0°", 45: "╲<br>45°", 90: "─<br>90°", 135: "╱<br>135°", 180: "│<br>180°"}
    names = list(ticks.values())
    figure.update_xaxes(
        title="orientation", range=[-8, 188], tickvals=list(ticks), ticktext=names, zeroline=False, tickangle=0
    )
    figure.update_yaxes(title="cycles a pixel", rangemode="tozero")
    return figure


def lines(filters: FilterBank, most: int = 256) -> Any:
    """The filters of a Conv1d as lines, in a grid of one plotly trace; of each filter the first input channel.

    A filter's line is scaled by the layer's largest weight, so that faint filters look faint.
    """
    weight = filters.weight[:most, 0].numpy()
    columns = math.ceil(math.sqrt(len(weight)))
    top = float(np.abs(filters.weight.numpy()).max()) or 1.0
    along = np.linspace(-0.42, 0.42, weight.shape[1])
    x: list[float | None] = []
    y: list[float | None] = []
    names: list[str] = []
    for index, one in enumerate(weight):
        row, column = divmod(index, columns)
        x += [*(column + along), None]
        y += [*(0.42 * one / top - row), None]
        names += [f"filter {index}"] * (len(one) + 1)
    trace = go.Scatter(x=x, y=y, text=names, hoverinfo="text", mode="lines", line={"color": QUALITATIVE[0], "width": 2})
    figure = go.Figure(trace)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def taps(filters: FilterBank, index: int, most: int = 8) -> Any:
    """One Conv1d filter: its weights against position, a line for each of the first input channels."""
    figure = go.Figure()
    for channel, values in enumerate(filters.weight[index, :most].numpy()):
        colour = QUALITATIVE[channel % len(QUALITATIVE)]
        figure.add_scatter(y=values, name=f"input {channel}", mode="lines+markers", line={"color": colour})
    figure.update_xaxes(title="position")
    figure.update_yaxes(title="weight", zeroline=True)
    return figure
