"""Published tables as figures: error against cost, ILSVRC by year, and the tables that this project trained."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sp_core.counts import short
from sp_core.figures.colour import QUALITATIVE
from sp_core.published import CONVENTION_WORDS, Ilsvrc, Record
from sp_core.trained import Row, Table

LECTURES = {"Ioannou": QUALITATIVE[0], "Huang": QUALITATIVE[1], "Zagoruyko": QUALITATIVE[2]}
OURS = QUALITATIVE[3]
GREY = "rgba(128,128,128,0.9)"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagram")
COSTS = {"macs": "multiply-accumulates", "parameters": "parameters"}


def cost_chart(records: Sequence[Record], which: str, tables: Sequence[Table] = ()) -> Any:
    """Error in percent (``which`` is ``"top-1"`` or ``"top-5"``) against multiply-accumulates and parameters.

    Two panels with one axis of errors and logarithmic costs. Colour is the lecture, shape the family; hollow ones were
    measured with more than one plain crop. Rows of ``tables`` (trained here) are stars with a dark edge. The custom
    data of a point are the name of its architecture ("" when there is none) and its options as text.

    >>> figure = cost_chart([Record("a", "ImageNet", "Huang", "f", "s", "p", 25.0, parameters=10, macs=100)], "top-1")
    >>> [trace.x for trace in figure.data]
    [(100,), (10,)]
    """
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.03)
    families = list(dict.fromkeys((one.lecture, one.family) for one in records))
    places: dict[str, int] = {}
    for lecture, family in families:
        symbol = SYMBOLS[places.setdefault(lecture, 0) % len(SYMBOLS)]
        places[lecture] += 1
        own = [one for one in records if (one.lecture, one.family) == (lecture, family)]
        _points(figure, own, which, f"{family} · {lecture}", symbol, LECTURES.get(lecture, GREY))
    for table in tables:
        _trained_points(figure, table)
    for column, words in enumerate(COSTS.values(), 1):
        figure.update_xaxes(
            type="log",
            title=words,
            dtick=1,
            exponentformat="SI",
            minor={"ticks": "outside"},
            ticks="outside",
            row=1,
            col=column,
        )
    figure.update_yaxes(title=f"{which} error, %", row=1, col=1)
    if tables:  # a short training is far from the published ones
        figure.update_yaxes(type="log", tickvals=[3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80])
    figure.update_layout(
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "font_size": 13},
        hoverlabel={"align": "left", "font_size": 14}, clickmode="event+select", dragmode="zoom",
    )  # fmt: skip
    return figure


def _points(figure: Any, own: Sequence[Record], which: str, name: str, symbol: str, colour: str) -> None:
    for column, cost in enumerate(COSTS, 1):
        shown = [one for one in own if getattr(one, cost) is not None and one.error(which) is not None]
        if not shown and column == 2:
            continue
        figure.add_scatter(
            x=[getattr(one, cost) for one in shown],
            y=[one.error(which) for one in shown],
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=column == 1,
            marker={
                "size": 12, "color": colour, "line": {"width": 1.5, "color": colour},
                "symbol": [symbol if one.comparable else f"{symbol}-open" for one in shown],
            },
            customdata=[[one.network, _options(one.options)] for one in shown],
            hovertext=[hover(one) for one in shown],
            hovertemplate="%{hovertext}<extra></extra>",
            selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
            row=1, col=column,
        )  # fmt: skip


def _trained_points(figure: Any, table: Table) -> None:
    for column, cost in enumerate(COSTS, 1):
        rows = [row for row in table.rows if getattr(row, cost)]
        figure.add_scatter(
            x=[getattr(row, cost) for row in rows],
            y=[row.error for row in rows],
            error_y={"type": "data", "array": [row.spread or 0 for row in rows], "thickness": 1.5},
            mode="markers",
            name=f"trained here: {table.title}",
            legendgroup=table.name,
            showlegend=column == 1,
            marker={"size": 15, "color": OURS, "symbol": "star", "line": {"width": 1.5, "color": "#222"}},
            customdata=[[row.architecture, _options(row.options)] for row in rows],
            hovertext=[
                f"<b>{row.label}</b><br>{row.error:.2f} % here{_plus_minus(row)}<br>"
                f"{short(row.parameters or 0)} parameters, {short(row.macs or 0)} MACs<br>{_wrapped(table.in_words())}"
                for row in rows
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1, col=column,
        )  # fmt: skip


def _options(options: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items())


def _plus_minus(row: Row) -> str:
    return f" ± {row.spread:.2f} over {len(row.runs)} seeds" if row.spread is not None else ", one seed"


def _wrapped(text: str) -> str:
    return "<br>".join(textwrap.wrap(text, 64))


def hover(one: Record) -> str:
    """What a point says: name, errors, counts with their convention, how it was measured, where it stands."""
    errors = [f"{which} {one.error(which):.4g} %" for which in ("top-1", "top-5") if one.error(which) is not None]
    lines = [f"<b>{one.name}</b> ({one.data})", ", ".join(errors)]
    for cost, word in (("parameters", "parameters"), ("macs", "multiply-accumulates")):
        value = getattr(one, cost)
        if value is not None:
            mark = ", counted here" if cost in one.counted else ", exact" if cost in one.exact else ", as published"
            lines.append(f"{value:,} {word}{mark}")
    lines += [_wrapped(f"Counting: {CONVENTION_WORDS[one.convention]}"), _wrapped(f"Measured: {one.protocol}")]
    if one.note:
        lines.append(_wrapped(one.note))
    lines.append(_wrapped(f"Source: {one.source}"))
    if one.network:
        lines.append("<i>click: the architecture</i>")
    return "<br>".join(lines)


def by_year(found: Ilsvrc) -> Any:
    """Layers (above) and top-5 error (below) of each year's entries as bars, and the line of a person's error."""
    winners = found.winners
    labels = [f"<b>{one.year}</b><br>{one.name or one.who.replace(' and ', ',<br>')}" for one in winners]
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.36, 0.64], vertical_spacing=0.05)
    common = {
        "x": labels, "textposition": "outside", "textfont": {"size": 16}, "cliponaxis": False, "showlegend": False,
        "customdata": [[one.network, ""] for one in winners],
        "hovertext": [_wrapped(f"{one.who} {one.year}. {one.note}") + f"<br>{one.source}" for one in winners],
        "selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}},
    }  # fmt: skip
    figure.add_bar(
        y=[one.layers or 0 for one in winners], text=[str(one.layers or "") for one in winners],
        marker_color=QUALITATIVE[1], hovertemplate="%{y} layers<br>%{hovertext}<extra></extra>", row=1, col=1, **common,
    )  # fmt: skip
    figure.add_bar(
        y=[one.top5_error for one in winners], text=[f"{one.top5_error:g}" for one in winners],
        marker_color=[QUALITATIVE[4] if one.layers is None else QUALITATIVE[0] for one in winners],
        hovertemplate="%{y} %<br>%{hovertext}<extra></extra>", row=2, col=1, textangle=0,
        insidetextfont={"color": "#ffffff"},
        **common | {"textposition": ["outside" if one.top5_error > found.human else "inside" for one in winners]},
    )  # fmt: skip
    figure.add_hline(
        y=found.human, line={"color": QUALITATIVE[5], "dash": "dash", "width": 2.5},
        annotation_text=f"a person: {found.human:g} %", annotation_position="top right",
        annotation_font={"size": 16, "color": QUALITATIVE[5]}, row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(title="layers", range=[0, 190], row=1, col=1)
    figure.update_yaxes(title="top-5 error, %", range=[0, 32], row=2, col=1)
    return figure


def development(found: Ilsvrc) -> Any:
    """Top-1 accuracies of well-known networks by year, as bars."""
    rows = found.development
    figure = go.Figure()
    figure.add_bar(
        x=[f"<b>{one.year}</b><br>{one.name}" for one in rows], y=[one.top1_accuracy for one in rows],
        marker_color=QUALITATIVE[2], text=[f"{one.top1_accuracy:g}" for one in rows], textposition="outside",
        textfont={"size": 15}, customdata=[[one.network, ""] for one in rows],
        hovertext=[one.source for one in rows], hovertemplate="%{y} %<br>%{hovertext}<extra></extra>",
        selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
    )  # fmt: skip
    figure.update_yaxes(title="top-1 accuracy, %", range=[0, 100])
    return figure


def trained(table: Table) -> Any:
    """Each row of a table: one small dot a seed, a large one for their mean, and the published error hollow.

    Bars are the standard deviation over the seeds; with one seed the standard error of so many test images.

    Two panels where there are published errors, each with its own axis: a short training is far from the published
    one, and the question is whether the *order* of the rows is the same.
    """
    labels = [row.label for row in table.rows]
    doubts = [row.spread or table.standard_error(row) or 0 for row in table.rows]
    known = [row for row in table.rows if row.published_error is not None]
    titles = ["trained here", "published"] if known else ["trained here"]
    figure = make_subplots(1, len(titles), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.05)
    seeds = [(row.label, error) for row in table.rows for error in row.errors if len(row.runs) > 1]
    figure.add_scatter(
        x=[error for _, error in seeds], y=[label for label, _ in seeds], mode="markers", name="one seed",
        marker={"size": 7, "color": OURS, "opacity": 0.6}, hovertemplate="%{x:.2f} %<extra>one seed</extra>",
        row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=[row.error for row in table.rows], y=labels, mode="markers+text", name="mean",
        text=[f"{row.error:.2f}" for row in table.rows], textposition="top center", textfont={"size": 14},
        error_x={"type": "data", "array": doubts, "thickness": 2},
        marker={"size": 14, "color": OURS, "symbol": "star"}, hovertemplate="%{x:.2f} %<extra>%{y}</extra>",
        customdata=[[row.architecture, _options(row.options)] for row in table.rows], row=1, col=1,
    )  # fmt: skip
    if known:
        figure.add_scatter(
            x=[row.published_error for row in known], y=[row.label for row in known], mode="markers+text",
            name="published", text=[f"{row.published_error:.2f}" for row in known], textposition="middle right",
            textfont={"size": 14}, marker={"size": 13, "color": LECTURES["Zagoruyko"], "symbol": "circle-open",
            "line": {"width": 2.5}}, hovertext=[row.published_source for row in known],
            hovertemplate="%{x:.2f} %<br>%{hovertext}<extra></extra>", row=1, col=2,
        )  # fmt: skip
    for column in range(1, len(titles) + 1):
        values = [row.error for row in table.rows] if column == 1 else [row.published_error or 0 for row in known]
        room = max(0.25 * (max(values) - min(values)), 1.0)  # so that chance does not fill the axis
        figure.update_xaxes(
            title="test error, %", range=[min(values) - room, max(values) + 2 * room], row=1, col=column
        )
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    figure.update_annotations(font_size=15)
    figure.update_layout(showlegend=False)
    return figure
