"""The identity in a weight: a and b of its channels, slices of the delta beside the weight's own, steps of folding."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from sp_core.figures.colour import QUALITATIVE
from sp_core.figures.weights import matrix
from sp_core.parameterizations import Step, delta

Picture = tuple[str, Image.Image]


def channel_numbers(a: Tensor, b: Tensor) -> Any:
    """A and b of every output channel, ``[out]`` each."""
    figure = go.Figure()
    for name, values, colour in (("a: of the identity", a, QUALITATIVE[0]), ("b: of the rest", b, QUALITATIVE[1])):
        figure.add_scatter(
            x=list(range(len(values))),
            y=values.tolist(),
            name=name,
            mode="markers",
            marker={"color": colour, "size": 6},
            hovertemplate="channel %{x}: %{y:.4f}<extra>" + name + "</extra>",
        )
    figure.add_hline(y=0, line={"color": "rgba(128,128,128,0.6)", "width": 1})
    figure.update_xaxes(title="output channel")
    figure.update_yaxes(title="a, b")
    figure.update_layout(legend={"orientation": "h", "y": 1.14, "x": 0})
    return figure


def slices(weight: Tensor, pair: tuple[int, int], tap: tuple[int, ...]) -> list[Picture]:
    """One kernel and one matrix of the delta I, and the same of ``weight`` ``[out, in, …kernel]``, blue to red.

    ``pair`` is the output and input channel of the kernel, ``tap`` the kernel position of the matrix. I is on the
    scale −1 to 1, the weight on its own.

    >>> import torch
    >>> [title for title, _ in slices(torch.randn(4, 4, 3, 3), (0, 0), (1, 1))]
    ['I[0, 0, :, :]', 'Ŵ[0, 0, :, :]', 'I[:, :, 1, 1]', 'Ŵ[:, :, 1, 1]']
    """
    weight = weight.detach().cpu().double()
    identity = delta(tuple(weight.shape))
    limit = float(weight.abs().max()) or 1.0
    kernel = ", ".join([*map(str, pair), *[":"] * (weight.ndim - 2)])
    whole = ", ".join([":", ":", *map(str, tap)])
    pictures = []
    for name, own, top in (("I", identity, 1.0), ("Ŵ", weight, limit)):
        pictures.append((f"{name}[{kernel}]", matrix(_flat(own[pair[0], pair[1]]), top)))
    for name, own, top in (("I", identity, 1.0), ("Ŵ", weight, limit)):
        pictures.append((f"{name}[{whole}]", matrix(at(own, tap), top)))
    return pictures


def at(weight: Tensor, tap: tuple[int, ...]) -> Tensor:
    """The ``[out, in]`` matrix of a weight ``[out, in, …kernel]`` at one kernel position, of any number of axes."""
    for index in tap:
        weight = weight[:, :, index]
    return weight


def _flat(kernel: Tensor) -> Tensor:
    """A kernel as a matrix: of one axis one row, of three its slices one below the other."""
    return kernel[None] if kernel.ndim == 1 else kernel.flatten(0, -2)


def step_picture(step: Step) -> tuple[Image.Image, float]:
    """The ``[out, in]`` matrix in the kernel's middle, on its own scale, and that scale: the darkest entry."""
    middle = tuple(size // 2 for size in step.weight.shape[2:])
    entries = at(step.weight, middle)
    limit = float(entries.abs().max()) or 1.0
    return matrix(entries, limit), limit
