"""How symmetric the trained weights are, against random ones, and how much of the identity they hold."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from sp_core.figures import weights as figures

SYMMETRY = (
    "Zagoruyko's symmetric layers constrain `W` to `Ŵ = Ŵᵀ` and halve its parameters. Here a trained weight is asked "
    "how symmetric it is by itself: the share of `‖W‖²` that lies in the symmetric weights. A random weight has the "
    "share that the marks show. Left–right symmetric kernels are even (bars, blobs); edges are odd and fall **below** "
    "random; smooth kernels are above it for every motion.\n\n"
    "The last figure asks for the identity: a DiracNet writes a weight as `diag(a) I + diag(b) W`, and the bar is the "
    "energy of `diag(a) I`. Layers inside residual blocks need little of it: the shortcut hands the channels on."
)
SYMMETRY_SOURCES = (
    "Hu, Zagoruyko and Komodakis 2018, arXiv:1812.11027; Zagoruyko and Komodakis 2017, arXiv:1706.00388 (DiracNets)"
)


def draw(here: Selection) -> None:
    """Symmetry energies against random ones, a weight and its parts, and the identity in it."""
    rows = cache.answer("symmetries", (here.net.fingerprint,), lambda: sp.weights.symmetries(here.net))
    kind = choose("Symmetry", tuple(sp.weights.KINDS), "kind", width=220)
    able = [row for row in rows if row.kind == kind and row.reason is None]
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(f"**Energy of the symmetry “{kind}”, layer by layer**")
        if able:
            show.figure(figures.symmetry_bars(able), alt=f"Symmetry energy ({kind}) of each layer", height=380)
        else:
            why = next(row for row in rows if row.kind == kind)
            st.info(f"No layer of this network can have it: {why.layer}, for one, because {why.reason}.")
    with right:
        st.markdown("**All symmetries: energy above or below random**")
        show.figure(figures.symmetry_table(rows), alt="Symmetry energies of all layers and kinds", height=380)
    if able:
        _parts(here, kind, tuple(row.layer for row in able))
    st.subheader("The identity in each convolution")
    identity = cache.answer("identity", (here.net.fingerprint,), lambda: sp.weights.identity_shares(here.net))
    if any(row.reason is None for row in identity):
        show.figure(figures.identity_bars(identity), alt="Share of the identity in each convolution", height=320)
    show.explain("What you are looking at", SYMMETRY, SYMMETRY_SOURCES)
    show.provenance(here, symmetry=kind)
    code = f"import sp_core as sp\n\nnet = sp.load({here.loads_as!r})\nprint(sp.weights.symmetries(net))"
    show.downloads("symmetry", table=figures.records(rows), code=code)


def _parts(here: Selection, kind: str, layers: tuple[str, ...]) -> None:
    """A chosen weight, its symmetric part and the rest; for square matrices the two simplest symmetric forms."""
    with st.container(horizontal=True):
        layer = choose("Layer", layers, "matrix", width=280)
        weight = sp.weights.find(here.net, layer).tensor
        tap = (0, 0)
        if kind == "channels" and weight.ndim == 4 and weight[0, 0].numel() > 1:
            high, wide = weight.shape[2:]
            tap = tuple(pick.number(f"Kernel {side}", key=f"tap-{side}", top=size - 1, default=size // 2)
                        for side, size in (("row", high), ("column", wide)))  # fmt: skip
    with st.container(horizontal=True):
        for title, picture in figures.parts(weight, kind, tap):
            show.picture(picture, f"{title} of {layer}", width=300, caption=title)
    if kind == "channels":
        st.markdown("**The same matrix as free numbers of a symmetric layer**")
        with st.container(horizontal=True):
            for title, picture in figures.forms(figures.at_tap(weight, tap)):
                show.picture(picture, title, width=170, caption=title)
