"""How the weights of a training run move, as figures: ranks and symmetry energies against the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sp_core.figures.colour import QUALITATIVE
from sp_core.weights.over_epochs import Moment, Ranks

BAND = "rgba(128,128,128,0.25)"
RING = {"size": 17, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#e69f00"}}
_RANKS: dict[str, Callable[[Ranks], float]] = {
    "σ₁": lambda row: row.sigma,
    "effective rank": lambda row: row.effective,
    "stable rank": lambda row: row.stable,
}


def places(moments: Sequence[Moment]) -> tuple[list[float], dict[float, str]]:
    """Where the moments lie on the axis, and names for those that no number places (``best``): behind the others.

    >>> places([Moment("1", 1, "a"), Moment("5", 5, "b"), Moment("best", None, "c")])
    ([1.0, 5.0, 9.0], {9.0: 'best'})
    """
    known = [float(one.position) for one in moments if one.position is not None]
    step = (max(known) - min(known)) / max(1, len(known) - 1) if len(known) > 1 else 1.0
    end, x, named = max(known, default=-1.0), [], {}
    for one in moments:
        if one.position is None:
            end += max(1.0, round(step))
            named[end] = one.label
        x.append(float(one.position) if one.position is not None else end)
    return x, named


def ranks_over_epochs(moments: Sequence[Moment], layer: str, chosen: str, unit: str) -> Any:
    """σ₁, effective and stable rank of one layer against the epoch, in three panels; a ring marks ``chosen``."""
    figure = make_subplots(1, len(_RANKS), subplot_titles=list(_RANKS), horizontal_spacing=0.07)
    rows = [one for one in moments if layer in one.ranks]
    colours = (QUALITATIVE[0], QUALITATIVE[2], QUALITATIVE[3])  # the ring is orange
    for column, (name, read) in enumerate(_RANKS.items()):
        values = [read(one.ranks[layer]) for one in rows]
        _line(figure, rows, values, chosen, name, unit, colours[column], (1, column + 1))
    figure.update_layout(showlegend=False)
    figure.update_annotations(font_size=15)
    return figure


def symmetry_over_epochs(moments: Sequence[Moment], layer: str, kind: str, chosen: str, unit: str) -> Any:
    """The energy of one symmetry in one layer against the epoch, above the band of a random weight."""
    rows = [one for one in moments if kind in one.symmetries.get(layer, {})]
    found = [one.symmetries[layer][kind] for one in rows]
    figure = go.Figure()
    if found:
        values = [row.energy for row in found] + [found[0].low, found[0].high]
        edge = 0.15 * (max(values) - min(values)) or 0.01
        figure.update_yaxes(range=[min(values) - edge, max(values) + edge])
        figure.add_hrect(
            y0=found[0].low, y1=found[0].high, fillcolor=BAND, line_width=0,
            annotation_text="random", annotation_position="top left",
        )  # fmt: skip
        figure.add_hline(y=found[0].expected, line={"color": QUALITATIVE[1], "dash": "dash", "width": 2})
    _line(figure, rows, [row.energy for row in found], chosen, "energy", unit, QUALITATIVE[0], None)
    figure.update_yaxes(title="symmetry energy")
    figure.update_layout(showlegend=False)
    return figure


def _line(
    figure: Any,
    rows: Sequence[Moment],
    values: Sequence[float],
    chosen: str,
    name: str,
    unit: str,
    colour: str,
    at: tuple[int, int] | None,
) -> None:
    """One line with a point a moment, in the order of its axis, and the ring."""
    x, named = places(rows)
    cell = {} if at is None else {"row": at[0], "col": at[1]}
    order = sorted(range(len(rows)), key=lambda i: x[i])
    figure.add_scatter(
        x=[x[i] for i in order],
        y=[values[i] for i in order],
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": 2.5},
        marker={"size": 8},
        text=[rows[i].label for i in order],
        hovertemplate=f"{unit} %{{text}}<br>{name} %{{y:.4g}}<extra></extra>",
        **cell,
    )
    marked = [i for i in order if rows[i].label == chosen]
    if marked:
        figure.add_scatter(
            x=[x[i] for i in marked],
            y=[values[i] for i in marked],
            mode="markers",
            marker=RING,
            hoverinfo="skip",
            **cell,
        )
    figure.update_xaxes(title=unit, **cell)
    if x and max(x) - min(x) <= 12:
        figure.update_xaxes(dtick=1, **cell)  # there is no half an epoch
    if named:
        numbers = sorted(set(x) - set(named))
        shown = numbers[:: max(1, -(-len(numbers) // 8))]
        ticks = {**{value: f"{value:g}" for value in shown}, **named}
        figure.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()), **cell)


def table(moments: Sequence[Moment], layer: str) -> list[dict[str, Any]]:
    """One row a moment, for a CSV file: its file, its fingerprint, what training left in it, and the layer's ranks."""
    scalars = [
        {key: value for key, value in one.record.items() if isinstance(value, (int, float, str))} for one in moments
    ]
    keys = list(dict.fromkeys(key for row in scalars for key in row))
    rows = []
    for one, record in zip(moments, scalars, strict=True):
        ranks = one.ranks.get(layer)
        rows.append(
            {"label": one.label, "file": one.file, "fingerprint": one.fingerprint, "layer": layer}
            | {f"file: {key}": record.get(key) for key in keys}
            | {name: None if ranks is None else read(ranks) for name, read in _RANKS.items()}
        )
    return rows
