"""Bars for class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from sp_core.figures.colour import QUALITATIVE


def probabilities(rows: Sequence[tuple[str, float]]) -> Any:
    """A plotly figure of (class name, probability) rows, the first on top, on a scale from 0 to 1.

    >>> len(probabilities([("cat", 0.9), ("dog", 0.1)]).data[0].x)
    2
    """
    names = [name if len(name) <= 28 else name[:27] + "…" for name, _ in rows]
    values = [chance for _, chance in rows]
    bars = go.Bar(
        x=values,
        y=list(range(len(rows))),
        orientation="h",
        text=[f"{value:.1%}" for value in values],
        textposition=["inside" if value > 0.25 else "outside" for value in values],  # "auto" cuts letters off
        constraintext="none",  # letters keep their size
        marker_color=QUALITATIVE[0],
        hovertext=[name for name, _ in rows],
        hoverinfo="text+x",
    )
    figure = go.Figure(bars)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, autorange="reversed", ticksuffix=" ")
    figure.update_xaxes(range=[0, 1.02], tickvals=[0, 0.5, 1], tickangle=0, tickformat=".0%", title="probability")
    figure.update_traces(textfont_size=14)
    figure.update_layout(showlegend=False, bargap=0.3)
    return figure
