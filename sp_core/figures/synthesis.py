"""Pictures made by ascent as one sheet, and how their activations grew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sp_core.figures.sprite import Sprite, make_sprite

if TYPE_CHECKING:
    from torch import Tensor

# Okabe and Ito's colours, which colour-blind people can tell apart.
_LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")


def sheet(images: Tensor, columns: int | None = None) -> Sprite:
    """Images ``[n, c, h, w]`` in [0, 1] as one sprite, in order. One channel is grey; of more, the first three."""
    planes = images.detach().float().cpu().clamp(0, 1)
    planes = planes[:, :3] if planes.shape[1] >= 3 else planes[:, :1].expand(-1, 3, -1, -1)
    tiles = (planes.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    return make_sprite(tiles, columns, gap=2)


def growth(values: NDArray[Any], names: Sequence[str], best: float | None = None) -> Any:
    """The activation of each picture against the step: ``values [steps, n]``; ``best`` is the best real patch's.

    At least one step. At most seven lines are drawn, those that end furthest from zero.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = np.argsort(-np.abs(values[-1]), kind="stable")[: len(_LINES)].tolist()
    for colour, index in zip(_LINES, sorted(shown), strict=False):
        steps = np.arange(1, len(values) + 1)
        line = {"color": colour, "width": 2}
        figure.add_scatter(x=steps, y=values[:, index], mode="lines", name=names[index], line=line)
    if best is not None:
        figure.add_hline(y=best, line_dash="dot", annotation_text="best real patch")
    figure.update_layout(
        font_size=14,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis_title="step",
        yaxis_title="activation",
        legend={"orientation": "h", "y": 1.15},
        showlegend=len(shown) > 1,
        margin={"l": 60, "r": 10, "t": 30, "b": 50},
    )
    return figure
