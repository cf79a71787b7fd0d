"""The features that the page answers from: there already, or made while one watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

import sp_core as sp
from pages.patch_views import data, indexing
from pages.ui import live
from sp_core.datasets.passes import batch_size, block_size
from sp_core.figures import neighbours as figures
from sp_core.nearest import Features, cache_folder, default_layers

QUICK = 512  # images of first features; larger networks begin with fewer


def choose(here: Any) -> tuple[str, Any, Features | None]:
    """Pick a data set and how much of it; its name, itself, and its features (None while there are none)."""
    net = here.net
    layers = default_layers(net)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = data.choose()
        images = data.dataset(source)
        folder = cache_folder(net, source, layers)
        found = _there(folder)
        small = max(net.input_size[1:]) <= 96
        wanted = indexing.choose_count(len(images), found, QUICK if small else 256)
    if found is None or found.done < wanted:
        _build(net, sp.datasets.take(images, wanted), folder, layers, start=found is None)
        found = _there(folder)
    return source, images, found


def _build(net: Any, images: Any, folder: Path, layers: tuple[str, ...], start: bool) -> None:
    seen: dict[str, Any] = {}

    def frame(record: Any) -> Any:
        if record.done not in seen:  # some of the images that have just gone in
            at = range(max(0, record.done - 8), record.done)
            seen[record.done] = figures.grid([[images.picture(i) for i in at]], side=96)
        return seen[record.done]

    live.run(
        lambda: sp.build_features(net, images, folder, layers),
        key="features",
        settings=(str(folder), len(images)),
        total=-(-len(images) // block_size(batch_size(net))),
        draw=frame,
        text=lambda record: f"{record.done:,} of {record.total:,} images in {len(layers)} layers; the latest:",
        alt="The images that have just been looked at",
        start=start,
        label=f"Look at {len(images):,} images",
    )


def _there(folder: Path) -> Features | None:
    file = folder / "features.json"
    return _load(str(folder), file.stat().st_mtime_ns) if file.is_file() else None


@st.cache_resource(max_entries=6, show_spinner=False)
def _load(folder: str, _changed: int) -> Features:
    """Shared by all viewers, who never change it."""
    return Features(folder)
