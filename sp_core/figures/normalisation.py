"""What batch normalisations have learnt, as one figure: four panels, every layer a box over its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sp_core.figures.colour import QUALITATIVE
from sp_core.weights.statistics import QUANTITIES, NormStatistics

TITLES = {
    "mean": "running mean μ",
    "variance": "running variance σ²",
    "scale": "scale γ",
    "shift": "shift β",
}
NEUTRAL = {"mean": 0.0, "variance": 1.0, "scale": 1.0, "shift": 0.0}  # what a fresh layer holds
FAINT = "rgba(128,128,128,0.75)"
_LEAST = 1e-8  # a logarithmic axis has no zero
_EVEN_EMPTY: Any = {"exclude_empty_subplots": False}  # plotly draws no line into a panel before its first trace


def distributions(rows: Sequence[NormStatistics], chosen: int | None = None) -> Any:
    """Mean, variance, scale and shift of every layer, first layer on the left: range, middle half, median.

    Thin: from the smallest to the largest channel; thick: the middle half of the channels; dot: the median. The dotted
    line is what a layer starts with. Variance is on a logarithmic axis.
    """
    figure = make_subplots(
        rows=2,
        cols=2,
        subplot_titles=[TITLES[name] for name in QUANTITIES],
        shared_xaxes=True,
        vertical_spacing=0.1,
        horizontal_spacing=0.09,
    )
    width = min(14.0, max(2.0, 320 / max(1, len(rows))))
    for panel, name in enumerate(QUANTITIES):
        cell = {"row": panel // 2 + 1, "col": panel % 2 + 1}
        figure.add_hline(y=NEUTRAL[name], line={"color": FAINT, "dash": "dot", "width": 1.5}, **cell, **_EVEN_EMPTY)
        known = [(i, five) for i, row in enumerate(rows) if (five := row.summary(name)) is not None]
        if name == "variance":
            known = [(i, tuple(max(value, _LEAST) for value in five)) for i, five in known]
            figure.update_yaxes(type="log", dtick=1, exponentformat="power", **cell)
        if chosen is not None:
            figure.add_vline(
                x=chosen, line={"color": "#e69f00", "width": width + 6}, opacity=0.4, **cell, **_EVEN_EMPTY
            )
        _segments(figure, [(i, five[0], five[4]) for i, five in known], FAINT, 1.5, cell)
        _segments(figure, [(i, five[1], five[3]) for i, five in known], QUALITATIVE[0], width, cell)
        figure.add_scatter(
            x=[i for i, _ in known],
            y=[five[2] for _, five in known],
            mode="markers",
            marker={"color": "#ffffff", "size": max(3.0, 0.45 * width), "line": {"color": "#000000", "width": 0.8}},
            text=[_words(rows[i], five) for i, five in known],
            hovertemplate="%{text}<extra></extra>",
            **cell,
        )
    if len(rows) <= 12:
        figure.update_xaxes(tickvals=list(range(len(rows))), ticktext=[row.layer for row in rows])
    else:
        figure.update_xaxes(title="layer, first to last", row=2)
    figure.update_xaxes(range=[-0.7, len(rows) - 0.3], zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_layout(showlegend=False)
    figure.update_annotations(font_size=15)
    return figure


def _segments(figure: Any, parts: list[tuple[int, float, float]], colour: str, width: float, cell: Any) -> None:
    """One vertical line a layer, all in one trace."""
    x = [value for i, _, _ in parts for value in (i, i, None)]
    y = [value for _, low, high in parts for value in (low, high, None)]
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip", **cell)


def _words(row: NormStatistics, five: tuple[float, ...]) -> str:
    low, quarter, median, three, high = (f"{value:.3g}" for value in five)
    return f"{row.layer}, {row.channels} channels<br>median {median}<br>half {quarter} to {three}<br>{low} to {high}"


def channels(row: NormStatistics) -> Any:
    """The channels of one layer: what each is multiplied with in the end, against what is then added to it."""
    figure = go.Figure()
    gain = row.gain
    if gain is not None:
        offset = (0 * gain if row.shift is None else row.shift) - gain * (0 * gain if row.mean is None else row.mean)
        figure.add_scatter(
            x=gain.numpy(),
            y=offset.numpy(),
            mode="markers",
            marker={"color": QUALITATIVE[0], "size": 9, "opacity": 0.7},
            text=[f"channel {i}" for i in range(len(gain))],
            hovertemplate="%{text}<br>gain %{x:.3g}, offset %{y:.3g}<extra></extra>",
        )
    figure.update_xaxes(title="gain γ / √(σ² + ε)", exponentformat="power")
    figure.update_yaxes(title="offset β − gain · μ", exponentformat="power")
    figure.update_layout(showlegend=False)
    return figure


def table(rows: Sequence[NormStatistics]) -> list[dict[str, Any]]:
    """The medians and what is switched off, a row a layer."""
    lines = []
    for row in rows:
        medians = {name: five[2] if (five := row.summary(name)) else None for name in QUANTITIES}
        gain = row.gain
        lines.append(
            {"layer": row.layer, "channels": row.channels}
            | {f"median {TITLES[name].split()[-1]}": _rounded(value) for name, value in medians.items()}
            | {
                "median gain": None if gain is None else _rounded(float(gain.median())),
                "scales near 0": row.off if row.scale is not None else None,
            }
        )
    return lines


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
