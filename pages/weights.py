"""Weight matrices: their spectra, what is left at low rank, and how symmetric they are."""

from pages.ui import nav

nav.ensure()

import streamlit as st

from pages.ui import show
from pages.ui.sidebar import selection
from pages.weight_views import low_rank, spectra, symmetry

VIEWS = {"spectra": ("Spectra", spectra), "low-rank": ("Low rank", low_rank), "symmetry": ("Symmetry", symmetry)}

here = selection()
show.title("Weight matrices", "How much of each weight matrix is low-rank, symmetric, or the identity?")
view = st.segmented_control(
    "Question",
    list(VIEWS),
    format_func=lambda name: VIEWS[name][0],
    default="spectra",
    key="view",
    bind="query-params",
    required=True,
)
VIEWS[view][1].draw(here)
