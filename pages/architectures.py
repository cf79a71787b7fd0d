"""Architectures: what they cost, how well they do, and how they are built."""

from pages.ui import nav

nav.ensure()

import streamlit as st

from pages.architecture_views import chart, one, slides, trained, years
from pages.ui import show

VIEWS = {
    "Error and cost": chart,
    "ILSVRC by year": years,
    "Trained here": trained,
    one.VIEW: one,
    "Wrong on slides": slides,
}

show.title(
    "Architectures",
    "What the networks of the lectures cost, how well they do, and how they are built. A click on a point opens it.",
)
if "architecture" in st.query_params and "view" not in st.query_params:
    st.session_state.setdefault("view", one.VIEW)  # the short link to one of them
# The address holds what the control shows, so the names are the options themselves.
view = st.segmented_control("View", list(VIEWS), default="Error and cost", key="view", bind="query-params",
                            required=True, label_visibility="collapsed")  # fmt: skip
if view != one.VIEW:
    for name in one.PARAMETERS:
        st.query_params.pop(name, None)
VIEWS[view].draw()
