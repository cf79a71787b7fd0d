"""Weight matrices: their spectra, what is left at low rank, and how symmetric they are."""

from pages.ui import nav

nav.ensure()

import streamlit as st

from pages.ui import show
from pages.ui.sidebar import selection
from pages.weight_views import low_rank, spectra, symmetry

VIEWS = {"Spectra": spectra, "Low rank": low_rank, "Symmetry": symmetry}

here = selection()
show.title("Weight matrices", "How much of each weight matrix is low-rank, symmetric, or the identity?")
# The address holds what the control shows, so the names are the options themselves.
view = st.segmented_control("Question", list(VIEWS), default="Spectra", key="view", bind="query-params", required=True)
VIEWS[view].draw(here)
