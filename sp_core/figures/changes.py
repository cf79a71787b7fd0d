"""What changed between two checkpoints, a bar a layer."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from sp_core.comparison import Comparison, LayerChange
from sp_core.figures.colour import QUALITATIVE

_ODD = {
    "reshaped": "another shape",
    "only in the first": "only in the first",
    "only in the second": "only in the second",
}


def layer_bars(found: Comparison) -> Any:
    """A plotly figure: the relative change of every layer in execution order, statistics as points beside the weights.

    Frozen layers stand on the line; layers without a partner of their shape are crosses on it.

    >>> import torch
    >>> from torch import nn
    >>> from sp_core.comparison import compare
    >>> from sp_core.network import Network
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_size=(3, 8, 8))
    >>> layer_bars(compare(net, net)).data[0].x
    ('0',)
    """
    rows = found.layers
    names = [row.layer or "(the network itself)" for row in rows]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[_shown(row.relative) for row in rows],
            name="weights",
            marker_color=QUALITATIVE[0],
            hovertext=[_words(row) for row in rows],
            hoverinfo="text",
        )
    )
    groups = (
        ("frozen", "circle-open", QUALITATIVE[2], [row.status == "unchanged" for row in rows], lambda row: 0.0),
        ("no partner", "x", QUALITATIVE[5], [row.status in _ODD for row in rows], lambda row: 0.0),
        ("statistics", "diamond", QUALITATIVE[1], [row.statistics > 0 for row in rows], lambda row: row.statistics),
    )
    for name, symbol, colour, mask, height in groups:
        some = [(label, row) for label, row, wanted in zip(names, rows, mask, strict=True) if wanted]
        if some:
            figure.add_scatter(
                x=[label for label, _ in some],
                y=[height(row) for _, row in some],
                mode="markers",
                marker={"symbol": symbol, "size": 9, "color": colour, "line": {"width": 2}},
                name=name,
                hovertext=[_words(row) for _, row in some],
                hoverinfo="text",
                cliponaxis=False,
            )
    many = len(names) > 40
    figure.update_xaxes(type="category", showticklabels=not many, tickangle=-45 if len(names) > 6 else 0)
    figure.update_xaxes(categoryorder="array", categoryarray=names)
    if many:
        figure.update_xaxes(title="layers in execution order")
    figure.update_yaxes(title="‖b − a‖ / ‖a‖", rangemode="tozero", tickformat=".3~g")
    figure.update_layout(
        margin_b=48 if many else None,
        bargap=0.25,
        legend={"orientation": "h", "y": 1.02, "x": 0, "yanchor": "bottom"},
        showlegend=True,
    )
    return figure


def _shown(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _words(row: LayerChange) -> str:
    name = row.layer or "the network itself"
    if row.status in _ODD and math.isnan(row.relative):
        return f"{name}: {_ODD[row.status]}"
    words = [f"{name}: {row.status}", f"relative change {row.relative:.4g}, cosine {row.cosine:.4f}"]
    if row.statistics > 0:
        words.append(f"statistics {row.statistics:.4g}")
    return "<br>".join(words)
