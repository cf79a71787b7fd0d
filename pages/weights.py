"""Weight matrices: spectra, low rank, symmetry, identity, free numbers, groups, and the normalisations."""

from pages.ui import nav

nav.ensure()

import streamlit as st

from pages.ui import epochs, show
from pages.ui.sidebar import selection
from pages.weight_views import compress, covariance, dirac, groups, low_rank, norms, parametrise, spectra, symmetry

VIEWS = {
    "Spectra": spectra,
    "Low rank": low_rank,
    "Compress": compress,
    "Symmetry": symmetry,
    "Dirac": dirac,
    "Parametrise": parametrise,
    "Groups": groups,
    "Covariance": covariance,
    "Batch norm": norms,
}

here = selection()
show.title("Weight matrices", "How much of each weight matrix is low-rank, symmetric, or the identity?")
found = epochs.slider(here)
# The address holds what the control shows, so the names are the options themselves.
view = st.segmented_control("Question", list(VIEWS), default="Spectra", key="view", bind="query-params", required=True)
if not here.net.has_graph:
    st.caption(
        ":material/help: Only the weights are known: layers are in the order of the file, and kinds are guessed from "
        "names and shapes. A transposed convolution (whose first two axes are swapped) or a grouped one cannot be told "
        "from a plain one."
    )
VIEWS[view].draw(here, found)
