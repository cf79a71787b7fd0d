"""What the made picture is held against: the same unit on real images."""

from __future__ import annotations

import streamlit as st
from PIL import Image

import sp_core as sp
from pages.patch_views import indexing
from pages.ui import cache, show
from pages.ui.sidebar import Selection
from sp_core.datasets.textures import Textures
from sp_core.patches.view import cut

DATASET = "textures"


def beside(here: Selection, name: str, peak: float, side: int) -> None:
    """The best real patch of the unit, and where ``peak`` lies among what the unit reaches on real images.

    ``name`` is a unit or the number of a class, whose scores are the last layer's channels.
    """
    index = indexing.index(here, DATASET)
    if index is None:
        st.caption("The page “Maximal patches” looks through real images; then the best real patch is shown here.")
        return
    unit = sp.Unit(here.net.layers[-1].name, int(name)) if name.isdigit() else sp.Unit.parse(name)
    unit = sp.Unit(unit.layer, unit.channel)
    try:
        best, share = index.top(unit, 1)[0], index.percentile(unit, peak)
    except (sp.SpError, IndexError):
        st.caption(f"The index of real images does not hold {unit}.")
        return
    key = (here.net.identity, str(unit), index.images)
    tile = cache.answer("best-patch", key, lambda: cut(Textures(best.image + 1), [best], here.net)[0])
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
