"""The graph of an architecture as a drawing: boxes from top to bottom, branches side by side, skips as arcs.

A row is a step: everything in it could run at once. Where a network works at several resolutions in parallel (MSDNet,
HRNet, U-Net) the columns are the resolutions, the finest at the left; elsewhere branches spread from where they part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sp_core.figures.colour import QUALITATIVE
from sp_core.flow import INPUT, JOINS
from sp_core.outline import Block
from sp_core.outline import rows as rows_of

ROW = 62  # pixels
LETTER = 0.56  # of the font's size is a letter wide
FONT = 14
_COLOURS = {"conv": QUALITATIVE[0], "pool": QUALITATIVE[2], "linear": QUALITATIVE[1], "module": QUALITATIVE[3]}
GREY = "#808080"
_WORDS = {"conv": "convolution", "pool": "pooling", "linear": "fully connected", "module": "module: click to open"}
HALF = 0.33  # of a row is half a box high


@dataclass(frozen=True)
class Place:
    """Where a box lies: its column (a number, 0 in the middle) and its row from the top, and half its width."""

    x: float
    row: int
    half: float


def layout(blocks: Sequence[Block]) -> list[Place]:
    """A place for every block.

    >>> layout([Block("a", "", "a", (), ()), Block("b", "", "b", (), (0,)), Block("c", "", "c", (), (0,))])[1:]
    [Place(x=-0.5, row=1, half=0.45), Place(x=0.5, row=1, half=0.45)]
    """
    rows = rows_of(tuple(blocks))
    followers = [[j for j, other in enumerate(blocks) if i in other.inputs] for i in range(len(blocks))]
    below = [0] * len(blocks)  # steps that still follow
    for i in reversed(range(len(blocks))):
        below[i] = max((1 + below[j] for j in followers[i]), default=0)
    scales = _scales(blocks, rows)
    x = [0.0] * len(blocks)
    for row in range(max(rows, default=-1) + 1):
        own = [i for i in range(len(blocks)) if rows[i] == row]
        wanted = {}
        for i in own:
            if scales is not None:
                wanted[i] = float(scales[i])
                continue
            parents = blocks[i].inputs
            wanted[i] = sum(x[p] for p in parents) / len(parents) if parents else 0.0
            if len(parents) == 1:
                siblings = [j for j in followers[parents[0]] if rows[j] == row]
                trunk = [j for j in siblings if below[j] == max(below[k] for k in siblings)]
                order = trunk + [j for j in siblings if j not in trunk]  # what goes on goes straight on
                wanted[i] += order.index(i) - (len(trunk) - 1) / 2
        _spread(own, wanted, x)
    middle = (min(x, default=0) + max(x, default=0)) / 2
    wide = 0.8 if max(x, default=0) - min(x, default=0) < 0.5 else 0.45
    return [
        Place(x[i] - middle, rows[i], (0.22 if wide < 0.5 else 0.3) if block.words in JOINS.values() else wide)
        for i, block in enumerate(blocks)
    ]


def _spread(own: list[int], wanted: Mapping[int, float], x: list[float]) -> None:
    """Places in one row: as wanted, at least one apart, and not drifting."""
    order = sorted(own, key=lambda i: (wanted[i], i))
    at: list[float] = []
    for i in order:
        at.append(wanted[i] if not at else max(wanted[i], at[-1] + 1))
    drift = sum(wanted[i] - a for i, a in zip(order, at, strict=True)) / max(1, len(order))
    for i, a in zip(order, at, strict=True):
        x[i] = a + (drift if len(order) > 1 else 0)


def _scales(blocks: Sequence[Block], rows: Sequence[int]) -> list[int] | None:
    """The resolution of each block as a column, 0 the finest, where several are worked at in parallel; else None."""
    level = [0] * len(blocks)
    heights = [max(block.shape[1:]) if len(block.shape) == 3 else 0 for block in blocks]
    finest = max(heights, default=0)
    grows = False
    for i, block in enumerate(blocks):
        steps = [
            level[p] + round(math.log2(heights[p] / heights[i])) for p in block.inputs if heights[p] and heights[i]
        ]
        grows |= any(heights[p] and heights[i] > 1.5 * heights[p] for p in block.inputs)
        if steps:
            level[i] = max(steps)
        elif heights[i] and finest:
            level[i] = round(math.log2(finest / heights[i]))
        else:
            level[i] = max((level[p] for p in block.inputs), default=0)
    both = sum(len({level[i] for i in range(len(blocks)) if rows[i] == row and heights[i]}) > 1 for row in set(rows))
    if not grows and both < 3:
        return None
    if grows and max(heights, default=0) <= 1:
        return None
    order = sorted(set(level))
    return [order.index(one) for one in level]


def group(block: Block) -> str:
    """``"conv"``, ``"pool"``, ``"linear"``, ``"module"``, ``"join"`` or ``"other"``: its colour."""
    if block.kind == INPUT:
        return "other"
    if block.whole:
        return "module"
    if block.words in JOINS.values():
        return "join"
    for word in ("conv", "pool", "linear"):
        if word in block.words:
            return word
    return "pool" if block.words in {"mean", "maximum"} else "other"


def title(block: Block) -> str:
    """What stands in the first line of a box.

    >>> title(Block("layer1", "Sequential", "Sequential", (64, 8, 8), (), whole=True, times=3))
    'layer1  ×3'
    """
    plain = block.whole and block.kind in {"Sequential", "ModuleList"}
    words = ".".join(block.name.split(".")[-3:]) if plain else block.words.lstrip("_")
    return words + (f"  ×{block.times}" if block.times > 1 else "")


def _dimensions(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) if shape else "several outputs"


def drawing(
    blocks: Sequence[Block], costs: Mapping[str, tuple[int, int]], chosen: str = "", width: int = 620, total: int = 0
) -> tuple[Any, int]:
    """The figure and its height in pixels.

    Args:
        blocks: what is drawn.
        costs: parameters and multiply-accumulates of each layer by name.
        chosen: the name of the block that is open beside it: drawn with a thick edge.
        width: pixels that the page is expected to give it: decides how much text a box takes.
        total: multiply-accumulates of the whole network; the bar in a box is its share of them.

    The custom data of a box's point are the name of the block where it is a module, else "".
    """
    places = layout(blocks)
    left, right = (f(p.x + s * p.half for p in places) for f, s in ((min, -1), (max, 1)))
    edges, reach = _edges(blocks, places)
    left, right = min(left, reach[0]) - 0.08, max(right, reach[1]) + 0.08
    if right - left < 2.2:
        left, right = min(left, -1.1), max(right, 1.1)
    last = max(p.row for p in places)
    unit = width / (right - left)  # pixels of one column
    figure = go.Figure()
    figure.add_scatter(
        x=edges["x"], y=edges["y"], mode="lines", line={"width": 1.6, "color": GREY}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=edges["tip_x"], y=edges["tip_y"], mode="markers", hoverinfo="skip", showlegend=False,
        marker={"size": 8, "color": GREY, "symbol": edges["tip"]},
    )  # fmt: skip
    shapes: list[dict[str, Any]] = []
    for block, place in zip(blocks, places, strict=True):
        shapes += _box(block, place, costs, block.name == chosen, total)
    figure.update_layout(shapes=shapes)
    _texts(figure, blocks, places, unit)
    _points(figure, blocks, places, costs, unit, total)
    figure.update_xaxes(visible=False, range=[left, right], fixedrange=True)
    figure.update_yaxes(visible=False, range=[last + 0.6, -0.6], fixedrange=True)
    shown = dict.fromkeys(group(block) for block in blocks)
    for word in (word for word in _COLOURS if word in shown):
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=_WORDS[word], marker={"size": 13, "symbol": "square",
            "color": _COLOURS[word]},
        )  # fmt: skip
    figure.update_layout(
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "font_size": 13, "itemclick": False,
                "itemdoubleclick": False},
        clickmode="event+select", dragmode=False, hoverlabel={"align": "left", "font_size": 14},
    )  # fmt: skip
    figure.update_layout(margin={"l": 4, "r": 4, "b": 8})
    return figure, (last + 1) * ROW + 90


def _sum(block: Block, costs: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    found = [costs[name] for name in block.members if name in costs]
    return sum(one[0] for one in found), sum(one[1] for one in found)


def _box(
    block: Block, place: Place, costs: Mapping[str, tuple[int, int]], chosen: bool, total: int
) -> list[dict[str, Any]]:
    """The rectangle of a block, one more behind it where it stands for several, and the bar of its share."""
    kind = group(block)
    colour = _COLOURS.get(kind, GREY)
    x0, x1, y0, y1 = place.x - place.half, place.x + place.half, place.row - HALF, place.row + HALF
    if kind == "join":
        y0, y1 = place.row - 0.2, place.row + 0.2
    fill = f"rgba({','.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))},{0.34 if chosen else 0.16})"
    base = {"type": "rect", "layer": "below", "line": {"color": colour, "width": 4 if chosen else 1.6}}
    made = []
    if block.times > 1:
        step = 0.03 * (x1 - x0)
        made.append(base | {"x0": x0 + step, "x1": x1 + step, "y0": y0 - 0.06, "y1": y1 - 0.06, "fillcolor": fill})
    made.append(base | {"x0": x0, "x1": x1, "y0": y0, "y1": y1, "fillcolor": fill})
    share = _sum(block, costs)[1] / total if total else 0
    if share > 0 and kind != "join":
        bar = {"x0": x0, "x1": x0 + (x1 - x0) * share, "y0": y1 - 0.09, "y1": y1, "fillcolor": colour}
        made.append({"type": "rect", "layer": "below", "line": {"width": 0}} | bar)
    return made


def _texts(figure: Any, blocks: Sequence[Block], places: Sequence[Place], unit: float) -> None:
    """Two lines in each box, cut to its width: what it is, and what comes out."""
    lines: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    under: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for block, place in zip(blocks, places, strict=True):
        room = int((2 * place.half * unit - 8) / (LETTER * FONT))
        words = title(block)
        if block.words in JOINS.values():
            lines["x"].append(place.x)
            lines["y"].append(place.row)
            lines["text"].append(words)
            continue
        after = "".join(f" · {word}" for word in block.after)
        first = words + after if len(words + after) <= room else words
        second = _dimensions(block.shape)
        own = ".".join(block.name.split(".")[-2:])
        if block.whole and own not in first and len(second + own) + 3 <= room * 1.15:
            second = f"{own} · {second}"
        if first == words and after and len(second + after) <= room * 1.15:
            second += after
        second = second if len(second) <= room * 1.15 else second.replace(" × ", "×")
        lines["x"].append(place.x)
        lines["y"].append(place.row - 0.13)
        lines["text"].append(_cut(first, room))
        under["x"].append(place.x)
        under["y"].append(place.row + 0.12)
        under["text"].append(_cut(second, int(room * 1.15)))
    for found, size in ((lines, FONT), (under, FONT - 2)):
        figure.add_scatter(**found, mode="text", textfont={"size": size}, hoverinfo="skip", showlegend=False)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"


def _points(
    figure: Any, blocks: Sequence[Block], places: Sequence[Place], costs: Mapping[str, tuple[int, int]], unit: float,
    total: int,
) -> None:  # fmt: skip
    """Invisible marks all over the boxes: they say what a box is, and are what is clicked."""
    rows: dict[str, list[Any]] = {"x": [], "y": [], "customdata": [], "hovertext": []}
    for block, place in zip(blocks, places, strict=True):
        parameters, macs = _sum(block, costs)
        words = [f"<b>{title(block)}</b>", block.name + (f" and {block.times - 1} more" if block.times > 1 else "")]
        words += [" → ".join(("then", *block.after))] * bool(block.after) + [f"output {_dimensions(block.shape)}"]
        if parameters or macs:
            share = f" ({macs / total:.1%})" if total else ""
            words.append(f"{parameters:,} parameters<br>{macs:,} multiply-accumulates{share}")
        count = max(1, int(2 * place.half * unit / 36))
        for k in range(count):
            rows["x"].append(place.x + place.half * ((2 * k + 1) / count - 1))
            rows["y"].append(place.row)
            rows["customdata"].append([block.name if block.whole else ""])
            rows["hovertext"].append("<br>".join(words))
    figure.add_scatter(
        **rows, mode="markers", hovertemplate="%{hovertext}<extra></extra>", showlegend=False,
        marker={"size": 36, "symbol": "square", "color": "rgba(0,0,0,0)"},
        selected={"marker": {"opacity": 0}}, unselected={"marker": {"opacity": 0}},
    )  # fmt: skip


def _edges(blocks: Sequence[Block], places: Sequence[Place]) -> tuple[dict[str, list[Any]], tuple[float, float]]:
    """Every connection as points of a line, with its arrow head, and how far the arcs reach to both sides."""
    made: dict[str, list[Any]] = {"x": [], "y": [], "tip_x": [], "tip_y": [], "tip": []}
    middle, reach = 0.0, [0.0, 0.0]
    longest = max((places[i].row - places[s].row for i, b in enumerate(blocks) for s in b.inputs), default=1)
    for i, block in enumerate(blocks):
        for source in block.inputs:
            start, end = places[source], places[i]
            span = end.row - start.row
            crossed = [
                p for p in places
                if start.row < p.row < end.row
                and abs(p.x - (start.x + (end.x - start.x) * (p.row - start.row) / span)) < p.half + 0.05
            ]  # fmt: skip
            high = 0.2 if block.words in JOINS.values() else HALF
            low = 0.2 if blocks[source].words in JOINS.values() else HALF
            if not crossed:
                x, y = _curve((start.x, start.row + low), (end.x, end.row - high - 0.06))
                tip = "triangle-down"
            else:
                side = -1 if (start.x + end.x) / 2 < middle - 0.2 else 1
                beyond = max([side * p.x + p.half for p in (start, end, *crossed)])
                out = side * (beyond + 0.12 + 0.75 * math.sqrt((span - 1) / max(longest, 4)))
                x, y = _arc(
                    (start.x + side * start.half, start.row + 0.08), (end.x + side * end.half, end.row - 0.08), out
                )
                tip = "triangle-left" if side > 0 else "triangle-right"
                reach = [min(reach[0], *x), max(reach[1], *x)]
            made["x"] += [*x, None]
            made["y"] += [*y, None]
            made["tip_x"].append(x[-1])
            made["tip_y"].append(y[-1])
            made["tip"].append(tip)
    return made, (reach[0], reach[1])


def _bezier(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    t = np.linspace(0, 1, 14)[:, None]
    a, b, c, d = (np.array(point) for point in points)
    curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    return curve[:, 0].tolist(), curve[:, 1].tolist()


def _curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[list[float], list[float]]:
    if start[0] == end[0]:
        return [start[0], end[0]], [start[1], end[1]]
    half = (start[1] + end[1]) / 2
    return _bezier((start, (start[0], half), (end[0], half), end))


def _arc(start: tuple[float, float], end: tuple[float, float], out: float) -> tuple[list[float], list[float]]:
    return _bezier((start, (out, start[1]), (out, end[1]), end))


def blocks_in_words(blocks: Sequence[Block]) -> str:
    """The drawing as one line, for those who cannot see it.

    >>> blocks_in_words([Block("a", "", "3×3 conv, 8", (8, 4, 4), ()), Block("b", "", "linear, 10", (10,), (0,))])
    '3×3 conv, 8 (8 × 4 × 4), linear, 10 (10)'
    """
    return ", ".join(f"{title(block)} ({_dimensions(block.shape)})" for block in blocks if block.kind != INPUT)


def table_of_costs(rows: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-accumulates of the layers without parts, by name."""
    return {row.name: (row.parameters, row.macs) for row in rows if row.leaf}
