"""Weight matrices as figures: spectra beside random ones, error against cost, symmetry energies, matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from sp_core.figures.colour import DIVERGING, QUALITATIVE, SEQUENTIAL, diverging, scale
from sp_core.figures.filters import sheet
from sp_core.figures.sprite import Sprite, make_sprite
from sp_core.filters import FilterBank, bank, tiles
from sp_core.network import Network
from sp_core.weights.dirac import Dirac
from sp_core.weights.low_rank import Curve, Factored, Site
from sp_core.weights.random_spectra import Band
from sp_core.weights.spectra import Spectrum
from sp_core.weights.symmetry import Symmetry, project

GREY = "rgba(128,128,128,0.45)"
RANDOM = "rgba(128,128,128,0.35)"
LARGEST = 256  # side of a matrix drawn pixel by pixel
BINS = 64


def spectra(rows: Sequence[Spectrum], chosen: int, band: Band) -> Any:
    """All spectra divided by their largest value, against the fraction of the rank; one of them, and random, in front.

    The random spectrum has the chosen layer's Frobenius norm and is divided by the chosen layer's σ₁ as well, so that
    the two are on one scale: where the layer is above it, it is stronger than chance.
    """
    figure = go.Figure()
    for index, row in enumerate(rows):
        values = _normal(row)
        if index != chosen and values is not None:
            x, y = _thinned(values)
            figure.add_scatter(
                x=x, y=y, name=row.layer, mode="lines", line={"color": GREY, "width": 1},
                showlegend=False, hovertemplate=row.layer + "<br>σ/σ₁ %{y:.3f}<extra></extra>",
            )  # fmt: skip
    row = rows[chosen]
    values = _normal(row)
    if values is not None:
        ratio = row.frobenius / float(row.values[0])
        x = _fractions(len(band.mean))
        low, high = (ratio * edge.clamp_min(1e-6).numpy() for edge in (band.low, band.high))
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", fillcolor=RANDOM,
            line={"width": 0}, name="random, same norm", hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=ratio * band.mean.clamp_min(1e-6).numpy(), mode="lines", name="random, mean",
            line={"color": QUALITATIVE[1], "dash": "dash", "width": 2},
        )  # fmt: skip
        x, y = _thinned(values)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=row.layer,
            line={"color": QUALITATIVE[0], "width": 4},
        )  # fmt: skip
    figure.update_xaxes(title="index / number of singular values", range=[0, 1])
    figure.update_yaxes(title="σ / σ₁", type="log", range=[-3, 0.15], dtick=1, tickformat=".3~g")
    figure.update_layout(legend={"x": 0.02, "y": 0.02})
    return figure


def rank_table(rows: Sequence[Spectrum]) -> list[dict[str, Any]]:
    """The ranks of all layers as plain rows, for a table or a CSV file."""
    return [
        {
            "layer": row.layer,
            "kind": row.kind,
            "matrix": f"{row.rows}×{row.columns}",
            "σ₁": round(float(row.values[0]), 4),
            "‖W‖": round(row.frobenius, 4),
            "full rank": len(row.values),
            "effective rank": round(row.effective_rank, 1),
            "stable rank": round(row.stable_rank, 1),
            "90 % energy": row.energy_rank(0.9),
            "99 % energy": row.energy_rank(0.99),
        }
        for row in rows
    ]


def records(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Frozen answers as plain rows, for a CSV file."""
    return [dataclasses.asdict(row) for row in rows]


def _fractions(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count


def _thinned(values: np.ndarray, most: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of a descending curve, at most about ``most`` of them, the first and the last included."""
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int))
    return _fractions(len(values))[at], values[at]


def _normal(row: Spectrum) -> np.ndarray | None:
    """σ/σ₁, not below 10⁻⁶ (a logarithmic axis has no zero); None when the weight is zero or not finite."""
    values = row.values.numpy()
    if not np.isfinite(values).all() or not len(values) or values[0] <= 0:
        return None
    return (values / values[0]).clip(1e-6)


def strip(rows: Sequence[Spectrum]) -> Any:
    """All spectra at one glance: a row a layer, from σ₁ on the left to the smallest on the right; colour is σ/σ₁."""
    cells = np.full((len(rows), BINS), np.nan, dtype=np.float32)
    for index, row in enumerate(rows):
        values = _normal(row)
        if values is not None:
            cells[index] = np.interp(_fractions(BINS), _fractions(len(values)), values)
    heat = go.Heatmap(
        z=cells,
        x=_fractions(BINS),
        y=[row.layer for row in rows],
        colorscale=scale(SEQUENTIAL),
        zmin=0,
        zmax=1,
        colorbar={"title": {"text": "σ / σ₁"}, "thickness": 14},
        hovertemplate="%{y}<br>σ/σ₁ %{z:.3f}<extra></extra>",
    )
    figure = go.Figure(heat)
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title="index / number of singular values")
    return figure


AXES = {"rank": "rank", "parameters": "parameters / original", "MACs": "multiply-accumulates / original"}


def errors(place: Site, curves: Sequence[Curve], chosen: Factored, axis: str = "MACs") -> Any:
    """Relative error of the rebuilt weight against rank, parameters or multiply-accumulates, one line a scheme."""
    figure = go.Figure()
    for index, row in enumerate(curves):
        ranks = np.arange(1, len(row.errors) + 1)
        parameters, macs = row.parameters.numpy() / place.parameters, row.macs.numpy() / place.macs
        figure.add_scatter(
            x={"rank": ranks, "parameters": parameters, "MACs": macs}[axis],
            y=row.errors.numpy(),
            name=row.scheme,
            mode="lines+markers" if len(ranks) < 40 else "lines",
            line={"color": QUALITATIVE[index], "width": 4 if row.scheme == chosen.scheme else 1.5},
            customdata=np.stack([ranks, parameters, macs], axis=1),
            hovertemplate=f"{row.scheme}, rank %{{customdata[0]:.0f}}<br>error %{{y:.3f}}<br>parameters "
            "%{customdata[1]:.2f} ×<br>MACs %{customdata[2]:.2f} ×<extra></extra>",
        )
    at = {"rank": chosen.rank, "parameters": chosen.parameters / place.parameters, "MACs": chosen.macs / place.macs}
    ring = {"size": 18, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#e69f00"}}
    figure.add_scatter(x=[at[axis]], y=[chosen.error], mode="markers", marker=ring, showlegend=False, hoverinfo="skip")
    if axis != "rank":
        figure.add_vline(x=1.0, line={"color": GREY, "dash": "dot"}, annotation_text="original")
    figure.update_xaxes(title=AXES[axis], rangemode="tozero")
    figure.update_yaxes(title="relative error ‖W − Ŵ‖ / ‖W‖", range=[0, 1.02])
    return figure


def symmetry_table(rows: Sequence[Symmetry]) -> Any:
    """Every symmetry of every layer: the energy above (red) or below (blue) that of a random weight."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    excess, words = np.full((len(layers), len(kinds)), np.nan, np.float32), np.full((len(layers), len(kinds)), "", "O")
    for row in rows:
        at = layers.index(row.layer), kinds.index(row.kind)
        excess[at] = row.energy - row.expected
        words[at] = row.reason or f"energy {row.energy:.3f}<br>random {row.low:.3f} to {row.high:.3f}"
    top = float(np.nanmax(np.abs(excess), initial=0.0)) or 1.0
    heat = go.Heatmap(
        z=excess,
        x=kinds,
        y=layers,
        text=words,
        colorscale=scale(DIVERGING),
        zmin=-top,
        zmax=top,
        colorbar={"title": {"text": "energy<br>− random"}, "thickness": 14},
        hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>",
        hoverongaps=False,
        xgap=2,
        ygap=1,
    )
    figure = go.Figure(heat)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def symmetry_bars(rows: Sequence[Symmetry]) -> Any:
    """One symmetry in every layer that can have it, as bars, with the band of a random weight as a mark on each."""
    known = [row for row in rows if row.reason is None]
    return _bars(
        [row.layer for row in known],
        [row.energy for row in known],
        [row.expected for row in known],
        ([row.high - row.expected for row in known], [row.expected - row.low for row in known]),
        "symmetry energy",
    )


def identity_bars(rows: Sequence[Dirac]) -> Any:
    """The share of the Dirac delta (one factor a channel) in every convolution, and that of a random weight."""
    known = [row for row in rows if row.reason is None]
    spread = [row.diagonal_high - row.diagonal_expected for row in known]
    below = [min(width, row.diagonal_expected) for width, row in zip(spread, known, strict=True)]
    figure = _bars(
        [row.layer for row in known],
        [row.diagonal for row in known],
        [row.diagonal_expected for row in known],
        (spread, below),
        "energy in diag(a) I",
    )
    figure.update_yaxes(range=None, autorange=True)
    return figure


def _bars(
    names: list[str], values: list[float], means: list[float], spread: tuple[list[float], list[float]], title: str
) -> Any:
    figure = go.Figure(
        go.Bar(x=names, y=values, name="this network", marker_color=QUALITATIVE[0], width=min(0.7, 0.12 * len(names)))
    )
    figure.add_scatter(
        x=names,
        y=means,
        mode="markers",
        name="random, ± 2 standard deviations",
        marker={"color": QUALITATIVE[1], "size": 9, "symbol": "line-ew", "line": {"width": 3, "color": QUALITATIVE[1]}},
        error_y={"type": "data", "array": spread[0], "arrayminus": spread[1], "color": QUALITATIVE[1], "width": 5},
    )
    figure.update_yaxes(title=title, range=[0, 1.02])
    figure.update_xaxes(type="category")
    figure.update_layout(legend={"orientation": "h", "y": 1.12, "x": 0}, bargap=0.3)
    return figure


def matrix(values: Tensor, limit: float | None = None) -> Image.Image:
    """A signed matrix as a picture: one pixel an entry up to 256×256, means of equal blocks beyond.

    >>> import torch
    >>> matrix(torch.ones(600, 20)).size
    (20, 200)
    """
    array = values.detach().cpu().double().numpy()
    steps = [-(-size // LARGEST) for size in array.shape]
    if max(steps) > 1:
        padding = [(0, -size % step) for size, step in zip(array.shape, steps, strict=True)]
        padded = np.pad(array, padding, constant_values=np.nan)  # the last block is the mean of what is there
        blocks = padded.reshape(padded.shape[0] // steps[0], steps[0], padded.shape[1] // steps[1], steps[1])
        array = np.nanmean(blocks, axis=(1, 3))
    return Image.fromarray(diverging(array, limit))


def parts(weight: Tensor, kind: str, tap: tuple[int, int] = (0, 0)) -> list[tuple[str, Image.Image]]:
    """A weight and its symmetric and antisymmetric parts as pictures on one scale.

    For ``"channels"`` the ``[out, in]`` matrix at one kernel position; else up to 12 × 12 of the k×k kernels.

    >>> import torch
    >>> [name for name, _ in parts(torch.randn(4, 4, 3, 3), "half turn")]
    ['W', 'symmetric part', 'the rest']
    """
    weight = weight.detach().cpu().double()
    symmetric = project(weight, kind)
    three = {"W": weight, "symmetric part": symmetric, "the rest": weight - symmetric}
    limit = float(weight.abs().max()) or 1.0
    if kind == "channels":
        whole = {name: at_tap(values, tap) for name, values in three.items()}
        limit = float(whole["W"].abs().max()) or 1.0
        return [(name, matrix(values, limit)) for name, values in whole.items()]
    pictures = []
    for name, values in three.items():
        some = values[:12, :12]
        colours = diverging(some.numpy(), limit)
        pictures.append((name, make_sprite(colours.reshape(-1, *colours.shape[2:]), columns=some.shape[1]).image))
    return pictures


def building_blocks(row: Factored, place: Site) -> Sprite:
    """The small kernels that the rebuilt layer is made of, strongest first, at most 64, signed.

    ``svd``: its k×k filters, in colour when the layer reads RGB; ``basis``: its separable kernels; ``separable``: the
    outer products of its strongest column and row; ``tucker``: its k×k core. Where a block has several input channels
    and no colours, the strongest of them is shown. Each block is on its own scale.
    """
    kernels = row.kernels
    if row.scheme == "svd" and place.weight.shape[1] == 3 and kernels[0].shape[2] > 1:
        first = FilterBank(row.layer, "Conv2d", kernels[0][:64].float(), 1, "rgb", True)
        return make_sprite(tiles(first))
    if row.scheme == "basis":
        blocks = (kernels[0][: row.rank] * kernels[1][: row.rank])[:, 0]
    elif row.scheme == "separable":
        blocks = _strongest(kernels[0]) @ _strongest(kernels[1].transpose(0, 1))
    else:
        blocks = _strongest(kernels[1 if row.scheme == "tucker" else 0])
    return make_sprite(np.stack([diverging(block) for block in blocks[:64].numpy()]))


def _strongest(kernels: Tensor) -> Tensor:
    """Of each of ``[r, c, h, w]`` the one of its c kernels that is longest: ``[r, h, w]``."""
    return kernels[range(len(kernels)), kernels.flatten(2).norm(dim=2).argmax(1)]


def before_and_after(net: Network, place: Site, row: Factored) -> list[tuple[str, Sprite]]:
    """The layer's filters as they are and rebuilt: in colour where it reads the image, else 16 × 24 signed kernels."""
    original = bank(net, place.layer)
    rebuilt = dataclasses.replace(original, weight=row.weight.float())
    pair = (("as trained", original), (f"rank {row.rank}", rebuilt))
    if original.view in {"rgb", "grey"}:
        return [(name, sheet(filters)) for name, filters in pair]
    top = float(original.weight.abs().max()) or 1.0
    sheets = []
    for name, filters in pair:
        some = filters.weight[:16, :24]
        colours = diverging(some.numpy(), top)
        sheets.append((name, make_sprite(colours.reshape(-1, *colours.shape[2:]), columns=some.shape[1])))
    return sheets


def at_tap(weight: Tensor, tap: tuple[int, int]) -> Tensor:
    """The ``[out, in]`` matrix of a weight at one kernel position; of a linear layer the weight itself.

    Of a Conv1d ``tap[1]`` is the position, of a Conv3d the middle slice is taken.
    """
    if weight.ndim == 2:
        return weight
    if weight.ndim == 3:
        return weight[:, :, min(tap[1], weight.shape[2] - 1)]
    return (weight if weight.ndim == 4 else weight[:, :, weight.shape[2] // 2])[:, :, tap[0], tap[1]]


def shown_width(picture: Image.Image, most: int, tallest: int = 360, largest: int = 12) -> int:
    """How wide a matrix is shown: enlarged by a whole number, at most ``most × tallest`` pixels, ``largest`` times.

    >>> shown_width(Image.new("RGB", (27, 64)), 900), shown_width(Image.new("RGB", (2000, 10)), 900)
    (135, 900)
    """
    times = min(most // picture.width, tallest // picture.height, largest)
    return picture.width * times if times >= 1 else min(most, picture.width)
