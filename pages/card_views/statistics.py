"""What the batch normalisations counted during training, in brief."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, nav, show
from pages.ui.sidebar import Selection
from sp_core.errors import SpError
from sp_core.figures import normalisation as figures


def draw(here: Selection) -> None:
    """Range, middle half and median over the channels of every layer; nothing where there is no such layer."""
    try:
        rows = cache.answer("norms", (here.net.identity,), lambda: sp.weights.norm_statistics(here.net))
    except SpError:
        return
    words = f"Batch normalisation: the statistics of {len(rows)} layers"
    with st.expander(words, icon=":material/equalizer:", expanded=not here.net.has_graph):
        alt = f"Running mean and variance, scale and shift of {len(rows)} batch normalisations"
        show.figure(figures.distributions(rows), alt=alt, height=480, key="norms")
        st.caption("Thin: from the smallest to the largest channel; thick: the middle half; dot: the median.")
        nav.page_link("weights.py", "Layer by layer, under Weight matrices")
