"""The chosen filter at every checkpoint of the training run that the network belongs to."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

import sp_core as sp
from pages.ui import cache, epochs, networks, show
from pages.ui.sidebar import Selection
from sp_core.checkpoints.snapshots import made_like

MOST = 16  # pictures in the strip
CHOSEN = "outline: 3px solid #e69f00; outline-offset: 3px; border-radius: 2px;"


def draw(
    here: Selection, found: epochs.Followed | None, bank: sp.filters.FilterBank, chosen: int, scaling: str
) -> None:
    """A strip of pictures of filter ``chosen``, one an epoch; nothing where there is no run or no picture."""
    if found is None or bank.view not in {"rgb", "grey"}:
        return
    st.subheader(f"Filter {chosen} over the run")
    rows = list(found.run.snapshots)
    at = rows.index(found.here)
    step = -(-len(rows) // MOST)
    shown = [row for i, row in enumerate(rows) if i % step == at % step]
    cells, other = [], []
    for row in shown:
        tiles = _tiles(here, found, row, bank.layer, scaling)
        if tiles is None or chosen >= len(tiles):
            other.append(row.label)
            continue
        picture = Image.fromarray(tiles[chosen])
        body = show.picture_html(picture, f"Filter {chosen} at {found.unit} {row.label}", 96, caption=None)
        mark = CHOSEN if row == found.here else ""
        name = html.escape(row.label)
        cells.append(f'<div style="text-align: center"><div style="{mark}">{body}</div><small>{name}</small></div>')
    st.html(f'<div style="display: flex; flex-wrap: wrap; gap: 1.1rem; padding: 6px">{"".join(cells)}</div>')
    words = "its own range" if scaling == "filter" else "its layer's scale at that time"
    some = f"Every {step}th of {len(rows)} checkpoints. " if step > 1 else ""
    st.caption(
        f"{some}By {found.unit}, earliest first; each picture on {words}."
        + (f" Without this layer or not readable: {', '.join(other)}." if other else "")
    )


def _tiles(here: Selection, found: epochs.Followed, row: Any, layer: str, scaling: str) -> np.ndarray | None:
    how = networks.how_to_read(found.sources[row.file])

    def compute() -> np.ndarray | None:
        try:
            net = made_like(how.read(), f"file {row.file}", here.net)
            return sp.filters.tiles(sp.filters.bank(net, layer), scaling)
        except sp.SpError:
            return None

    return cache.answer("epoch-tiles", (how.key, here.net.architecture, layer, scaling), compute)
