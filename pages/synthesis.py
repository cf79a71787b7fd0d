"""Gradient ascent and DeepDream: pictures that the network makes, which grow while one watches."""

from pages.ui import nav

nav.ensure()

import streamlit as st

from pages.synthesis_views import ascent, dreaming
from pages.ui import show
from pages.ui.sidebar import selection

VIEWS = {"Ascent": ascent, "DeepDream": dreaming}  # the address bar has these words

here = selection()
show.title(
    "Ascent and DeepDream",
    "Images that the network makes: noise turned into what a unit likes most, or your picture into what a layer sees.",
)
view = st.segmented_control(
    "View",
    list(VIEWS),
    default="Ascent",
    key="view",
    bind="query-params",
    required=True,
    label_visibility="collapsed",
)
VIEWS[view].draw(here)
