"""Real images: those that the made pictures get their colours from, and the same unit's best patch among them."""

from __future__ import annotations

from typing import Any

import streamlit as st
import torch
from PIL import Image

import sp_core as sp
from pages.patch_views import data, indexing
from pages.synthesis_views.choice import is_small
from pages.ui import cache, show
from pages.ui.sidebar import Selection
from sp_core.patches.view import cut

FEW, MANY = 48, 256  # images whose statistics are taken, of large and small ones


def examples(here: Selection, source: str) -> torch.Tensor:
    """Images spread over the data set ``source``, as the network is fed with them."""
    images = data.dataset(source)  # not through the cache: a live loop asks, whose turn it is already
    return sp.datasets.select(images, spread(len(images), is_small(here.net)), here.net)


def spread(count: int, small: bool) -> range:
    """Numbers of images, as far apart as ``count`` of them allow."""
    return range(0, count, max(1, count // (MANY if small else FEW)))


def code(here: Selection, source: str) -> str:
    """The Python that takes the same images; a folder or an upload stands under its own path there."""
    images = data.dataset(source)
    rows = spread(len(images), is_small(here.net))
    named = source if source.startswith("textures") else f"PATH OF {data.label(source)}"
    return (
        f"images = sp.datasets.open({named!r}, count={len(images)})\n"
        f"examples = sp.datasets.select(images, range(0, {rows.stop}, {rows.step}), net)\n"
    )


def beside(here: Selection, source: str, name: str, peak: float, side: int) -> None:
    """The best real patch of the unit, and where ``peak`` lies among what the unit reaches on real images.

    ``name`` is a unit or the number of a class, whose scores are the last layer's channels.
    """
    index = indexing.index(here, source)
    if index is None:
        st.caption(
            f"The page “Maximal patches” looks through {data.label(source)}; then the unit's best real patch is shown "
            "here. Other images can be chosen under *More*."
        )
        return
    unit = sp.Unit(here.net.layers[-1].name, int(name)) if name.isdigit() else sp.Unit.parse(name)
    unit = sp.Unit(unit.layer, unit.channel)
    try:
        best, share = index.top(unit, 1)[0], index.percentile(unit, peak)
    except (sp.SpError, IndexError):
        st.caption(f"The index of real images does not hold {unit}.")
        return
    key = (here.net.identity, source, str(unit), best.image, index.images)
    images: Any = data.dataset(source)
    tile = cache.answer("best-patch", key, lambda: cut(images, [best], here.net)[0])
    width = max(1, side // tile.shape[1]) * tile.shape[1]
    show.picture(
        Image.fromarray(tile),
        alt=f"The real patch that drives {unit} most",
        width=width,
        caption=f"Best of {index.images:,} real images: {best.activation:.4g} (image {best.image})",
    )
    above = peak / best.activation if best.activation > 0 else 0
    more = f", {above:.1f} × the best real one" if above > 1 else ""
    st.caption(f"The made picture reaches {peak:.4g}: above {share:.1f} % of real images{more}.")
