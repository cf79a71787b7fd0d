"""The filters that read the image, for a network of which nothing else can be shown."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, nav, show
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.errors import SpError
from sp_core.figures import filters as figures


def draw(here: Selection) -> None:
    """All filters of the convolution that is likeliest to read the image."""
    try:
        bank = sp.filters.bank(here.net)
    except SpError:  # nothing convolves
        return
    if bank.view in {"tiles", "lines"}:
        return
    facts = cache.answer("filter-facts", (here.net.identity, bank.layer), lambda: sp.filters.facts(bank))
    sheet = figures.sheet(bank, "filter", facts.order("index"))
    st.subheader("First-layer filters")
    alt = f"The {bank.count} filters of {bank.layer} of {here.net.name}"
    show.picture(sheet.image, alt=alt, width=sheet.image.width * max(1, 640 // sheet.image.width))
    shape = "×".join(map(str, bank.weight.shape))
    st.caption(f"The {bank.count} filters of {unmarked(bank.layer)} ({shape}), each scaled to its own range.")
    nav.page_link("filters.py", "Take them apart")
