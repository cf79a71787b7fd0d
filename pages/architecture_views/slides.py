"""Where the lectures' slides, and the papers' tables, are wrong."""

from __future__ import annotations

import streamlit as st

from pages.architecture_views import one
from pages.ui import show
from sp_core.published import corrections


def draw() -> None:
    """One line each, with a button that opens the architecture it is about."""
    st.markdown("The app shows the right number everywhere; this is what the slides say instead, and why.")
    table = [
        {
            "where": row.where,
            "says": row.says,
            "right": row.right,
            "why": row.why,
            "architectures": ", ".join(row.networks),
        }
        for row in corrections()
    ]
    for place, row in enumerate(corrections()):
        with st.container(border=True):
            left, right = st.columns([5, 1], vertical_alignment="center")
            with left:
                one.correction(row)
            right.button(
                row.networks[0], key=f"wrong-{place}", on_click=one.open_it, args=(row.networks[0],), width="stretch"
            )
    show.downloads("wrong-on-slides", table=table)
