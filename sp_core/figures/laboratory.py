"""The laboratory of weights as tables and figures: a compression plan, free numbers of a weight, filter groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sp_core.errors import SpError
from sp_core.figures.colour import QUALITATIVE, diverging
from sp_core.figures.sprite import make_sprite
from sp_core.figures.weights import GREY, matrix
from sp_core.parameterizations import LDL, Bases, LowRank, Parameterization, Tied, entry, names, places
from sp_core.weights.covariance import Covariance
from sp_core.weights.grouped import Grouping
from sp_core.weights.low_rank import Curve, Site

Places = Mapping[str, tuple[Site, list[Curve]]]
Plan = dict[str, tuple[str, int]]
Picture = tuple[str, Image.Image]
WHOLE = "–"  # the scheme of a layer that stays as it is
SIDE = 512  # pixels of a covariance matrix on the page


def plan_table(places: Places, plan: Mapping[str, tuple[str, int]]) -> list[dict[str, Any]]:
    """Every layer with its scheme and rank, what that loses, and what it costs beside what the layer cost.

    ``scheme`` is ``"–"`` and ``rank`` None where a layer stays as it is. Costs are read off the curves, so nothing is
    decomposed again.

    Raises:
        SpError: a layer, scheme or rank of the plan is not among the curves.
    """
    for layer in plan:
        if layer not in places:
            raise SpError(f"{layer} is not a layer that can be factored here; choose one of {', '.join(places)}.")
    rows = []
    for layer, (place, curves) in places.items():
        shape = "×".join(map(str, place.weight.shape if min(place.weight.shape[2:]) > 1 else place.weight.shape[:2]))
        row = {"layer": layer, "weight": shape, "scheme": WHOLE, "rank": None, "error": 0.0}
        cost = place.parameters, place.macs
        if layer in plan:
            scheme, rank = plan[layer]
            own = next((curve for curve in curves if curve.scheme == scheme), None)
            if own is None:
                known = ", ".join(curve.scheme for curve in curves)
                raise SpError(f"The scheme for {layer} must be one of {known}; got '{scheme}'.")
            if not 1 <= rank <= len(own.errors):
                raise SpError(f"The rank of {layer} under '{scheme}' is from 1 to {len(own.errors)}; got {rank}.")
            row |= {"scheme": scheme, "rank": rank, "error": float(own.errors[rank - 1])}
            cost = int(own.parameters[rank - 1]), int(own.macs[rank - 1])
        row |= {"parameters": cost[0], "of": place.parameters, "MACs": cost[1], "of MACs": place.macs}
        rows.append(row)
    return rows


def plan_of(rows: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan in a table such as :func:`plan_table` makes; a row without a scheme or a rank stays as it is.

    >>> plan_of([{"layer": "a", "scheme": "svd", "rank": 3.0}, {"layer": "b", "scheme": WHOLE, "rank": 2}])
    {'a': ('svd', 3)}
    """
    plan: Plan = {}
    for row in rows:
        scheme, rank = row["scheme"], row["rank"]
        if scheme in (None, WHOLE) or rank is None or math.isnan(float(rank)):
            continue
        plan[str(row["layer"])] = (str(scheme), int(rank))
    return plan


def plan_bars(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Multiply-accumulates of each layer as it was (outline) and as planned (filled), with the error on hover."""
    names = [row["layer"] for row in rows]
    figure = go.Figure()
    figure.add_bar(
        x=names, y=[row["of MACs"] for row in rows], name="as trained", width=0.8, marker_color=GREY, hoverinfo="skip"
    )  # fmt: skip
    figure.add_bar(
        x=names,
        y=[row["MACs"] for row in rows],
        name="factored",
        width=0.5,
        marker_color=[QUALITATIVE[0] if row["rank"] else GREY for row in rows],
        customdata=[[row["scheme"], row["rank"] or "whole", row["error"], row["of MACs"]] for row in rows],
        hovertemplate="%{x}: %{customdata[0]}, rank %{customdata[1]}<br>error %{customdata[2]:.3f}<br>"
        "%{y:,} of %{customdata[3]:,} MACs<extra></extra>",
    )
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.12, "x": 0})
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="multiply-accumulates")
    return figure


def written(weight: Tensor, rebuilt: Tensor, own: Parameterization, parts: Sequence[Tensor]) -> list[Picture]:
    """A weight, the free numbers of its nearest Ŵ, and Ŵ: titles and pictures, W and Ŵ on one scale.

    What acts inside a kernel (low rank, spatial symmetry) is shown as up to 12 × 12 kernels, all else as the
    ``[out, in]`` matrix at the middle of the kernels. Numbers that entries share are shown at the first entry that
    reads them, white where an entry repeats one; other parts as matrices, first axis down. A part of W's shape is on
    W's scale, every other on its own.
    """
    inside = isinstance(own, (LowRank, Bases)) or getattr(own, "kernel", None)
    view = _kernels if inside and weight.ndim == 4 and weight[0, 0].numel() > 1 else _middle
    limit = float(weight.abs().max()) or 1.0
    free = []
    if isinstance(own, Tied):
        free = [(f"v: {own.kept:,} free numbers", view(_in_place(own, parts[0]), limit))]
    elif isinstance(own, LDL):
        free = [(f"v: {own.kept:,} free numbers, L below d", _middle(_lower(own, parts[0]), None))]
    else:
        for index, part in enumerate(parts):
            size = "×".join(map(str, part.shape))
            whole = part.ndim == weight.ndim > 2 and part.shape[2:] == weight.shape[2:] and view is _middle
            picture = _middle(part, limit if part.shape == weight.shape else None) if whole else matrix(flat(part))
            free.append((f"v, part {index + 1} of {len(parts)}: {size}", picture))
    return [("W, as trained", view(weight, limit)), *free, ("Ŵ", view(rebuilt, limit))]


@dataclass(frozen=True, eq=False)
class Form:
    """One symmetric form of a weight.

    Attributes:
        name: of the parametrisation. formula: how Ŵ is made of v.
        kept: numbers that the weight needs. error: ``‖W − Ŵ‖ / ‖W‖`` for the nearest Ŵ.
        pictures: v (one for each part) and Ŵ.
    """

    name: str
    formula: str
    kept: int
    error: float
    pictures: list[Picture]


def forms(weight: Tensor, kernel: bool = False) -> list[Form]:
    """Every symmetric form that a weight ``[n, n, …kernel]`` can have, nearest to it: the lecture's figure W, v, Ŵ.

    ``kernel``: those that are symmetric inside each k × k kernel; else those of the matrix of channels alone.

    >>> [row.name for row in forms(torch.randn(4, 4, 3, 3), kernel=True)][:2]
    ['spatial', 'spatial-average']
    """
    rows = []
    weight = weight.detach().cpu().float()
    norm = float(weight.double().norm()) or 1.0
    for name in names("symmetric"):
        own = entry(name)
        if name.startswith("spatial") != kernel or own.obstacle(tuple(weight.shape), 0) is not None:
            continue
        options = dict(own.options)
        made = own.make(tuple(weight.shape), 0, **options).eval()
        parts = made.right_inverse(weight)
        rebuilt = made(*parts)
        pictures = [(_short(title), picture) for title, picture in written(weight, rebuilt, made, parts)[1:]]
        error = float((weight.double() - rebuilt.double()).norm()) / norm
        rows.append(Form(name, own.formula, made.kept, error, pictures))
    return rows


def _short(title: str) -> str:
    return title.partition(":")[0].removesuffix(", part 1 of 1").replace(" of 2", "")


def _kernels(weight: Tensor, limit: float | None) -> Image.Image:
    some = diverging(weight[:12, :12].detach().cpu().double().numpy(), limit)
    return make_sprite(some.reshape(-1, *some.shape[2:]), columns=some.shape[1]).image


def _middle(weight: Tensor, limit: float | None) -> Image.Image:
    for size in reversed(weight.shape[2:]):
        weight = weight[..., size // 2]
    return matrix(weight, limit)


def flat(weight: Tensor) -> Tensor:
    """Any tensor as a matrix, first axis down; of ``[out, in, k, k]`` each row holds the kernels of one output.

    >>> flat(torch.ones(4, 3, 2, 2)).shape, flat(torch.ones(5)).shape
    (torch.Size([4, 12]), torch.Size([1, 5]))
    """
    return weight[None] if weight.ndim == 1 else weight.flatten(1)


def _in_place(own: Tied, part: Tensor) -> Tensor:
    """The free numbers where an entry first reads them, 0 where an entry repeats one."""
    numbers = torch.arange(part.numel(), dtype=torch.float64).view_as(part)
    reads = own(numbers).long().flatten()
    order = torch.arange(len(reads))
    first = torch.full((part.numel(),), len(reads)).scatter_reduce(0, reads, order, "amin")
    shown = torch.zeros(len(reads), dtype=torch.float64)
    shown[first] = part.detach().cpu().double().flatten()
    return shown.view(own.shape)


def _lower(own: LDL, part: Tensor) -> Tensor:
    """L and d as a matrix at each kernel position: d on the diagonal, L below it, 0 above."""
    whole = part.detach().cpu()[places("triangular", own.shape[0])]
    return whole.movedim((0, 1), (-2, -1)).tril().movedim((-2, -1), (0, 1))


def covariance(row: Covariance, groups: int = 1, order: tuple[Tensor, Tensor] | None = None) -> Image.Image:
    """Correlations in [-1, 1] (blue to red) of the channels of two layers; ``groups`` blocks outlined, if several.

    ``order``: of rows and columns, else as they are.
    """
    values = row.correlation if order is None else row.correlation[order[0]][:, order[1]]
    return outlined(values, groups, 1.0)


def outlined(values: Tensor, groups: int, limit: float | None = None) -> Image.Image:
    """A matrix enlarged to :data:`SIDE` pixels, with ``groups`` equal blocks along its diagonal outlined, if several.

    >>> outlined(torch.ones(8, 4), 2).size
    (256, 512)
    """
    small = matrix(values, limit)
    times = max(1, SIDE // max(small.size))
    picture = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    if groups > 1:
        pen = ImageDraw.Draw(picture)
        for at in range(groups):
            left, top = at * picture.width // groups, at * picture.height // groups
            right, bottom = (at + 1) * picture.width // groups - 1, (at + 1) * picture.height // groups - 1
            pen.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=2)
    return picture


def grouping_bars(row: Grouping) -> Any:
    """What imposed, learned and condensed groups keep of the energy, each beside what it is without groups.

    That is, for imposed groups random orders (± 2 standard deviations), for the others the least and the most that the
    search finds in matrices without groups.
    """
    figure = go.Figure()
    names = ["imposed", "learned", "condensed"]
    figure.add_bar(
        x=names,
        y=[row.imposed, row.learned, row.condensed],
        name="this layer",
        width=0.5,
        marker_color=QUALITATIVE[0],
        hovertemplate="%{x}: %{y:.1%}<extra></extra>",
    )
    bands = [(row.chance - row.spread, row.chance + row.spread)]
    bands += [(min(values), max(values)) for values in zip(*row.without, strict=True)]
    middle = [(low + high) / 2 for low, high in bands]
    figure.add_scatter(
        x=names[: len(bands)],
        y=middle,
        mode="markers",
        name="without groups",
        marker={"color": QUALITATIVE[1], "size": 9, "symbol": "line-ew", "line": {"width": 3, "color": QUALITATIVE[1]}},
        error_y={
            "type": "data",
            "array": [high - at for (_, high), at in zip(bands, middle, strict=True)],
            "color": QUALITATIVE[1],
            "width": 8,
        },
    )
    figure.update_yaxes(title="energy kept", range=[0, 1.02], tickformat=".0%")
    figure.update_layout(legend={"orientation": "h", "y": 1.2, "x": 0})
    return figure


def group_counts(rows: int, columns: int) -> list[int]:
    """How many equal groups the channels of two layers can both be divided into, from 2.

    >>> group_counts(8, 12), group_counts(3, 4)
    ([2, 4], [])
    """
    common = math.gcd(rows, columns)
    return [count for count in range(2, common + 1) if common % count == 0]


def block_shares(row: Covariance) -> list[dict[str, Any]]:
    """The share of squared correlation inside the blocks for every number of groups, beside that of chance."""
    counts = group_counts(*row.matrix.shape)
    return [{"groups": count, "share in blocks": row.block_share(count), "by chance": 1 / count} for count in counts]


def block_share_curve(table: Sequence[Mapping[str, Any]], chosen: int) -> Any:
    """:func:`block_shares` as two lines, the chosen number of groups ringed."""
    figure = go.Figure()
    counts = [row["groups"] for row in table]
    for name, colour, dash in (
        ("share in blocks", QUALITATIVE[0], "solid"),
        ("by chance", QUALITATIVE[1], "dash"),
    ):
        figure.add_scatter(
            x=counts,
            y=[row[name] for row in table],
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 3},
            hovertemplate="%{x} groups: %{y:.3f}<extra>" + name + "</extra>",
        )
    ring = {"size": 18, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#e69f00"}}
    at = [row["share in blocks"] for row in table if row["groups"] == chosen]
    figure.add_scatter(x=[chosen] * len(at), y=at, mode="markers", marker=ring, showlegend=False, hoverinfo="skip")
    figure.update_xaxes(title="groups", type="log", tickvals=counts, ticktext=[str(count) for count in counts])
    figure.update_yaxes(title="squared correlation in blocks", range=[0, 1.02])
    figure.update_layout(legend={"x": 0.98, "y": 0.98, "xanchor": "right"})
    return figure
