"""How symmetric the trained weights are, against random ones, and how much of the identity they hold."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.figures import epochs as over_epochs
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


def draw(here: Selection, found: epochs.Followed | None) -> None:
    """Symmetry energies against random ones, a weight and its parts, how they moved over a run, and the identity."""
    rows = cache.answer("symmetries", (here.net.identity,), lambda: sp.weights.symmetries(here.net))
    if all(row.reason is not None for row in rows):
        st.info(f"No weight of this network is square or has k×k kernels: {rows[0].layer}, for one: {rows[0].reason}.")
        return
    kinds = tuple(sp.weights.KINDS)
    first = next((kinds.index(row.kind) for row in sorted(rows, key=_by_kind) if row.reason is None), 0)
    kind = choose("Symmetry", kinds, "kind", index=first, width=220)
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
        _parts(here, found, kind, tuple(row.layer for row in able))
    identity = cache.answer("identity", (here.net.identity,), lambda: _identity(here.net))
    if any(row.reason is None for row in identity):
        st.subheader("The identity in each convolution")
        show.figure(figures.identity_bars(identity), alt="Share of the identity in each convolution", height=320)
    show.explain("What you are looking at", SYMMETRY, SYMMETRY_SOURCES)
    show.provenance(here, symmetry=kind)
    code = f"import sp_core as sp\n\nnet = {here.code}\nprint(sp.weights.symmetries(net))"
    show.downloads("symmetry", table=figures.records(rows), code=code)


def _identity(net: sp.Network) -> tuple[sp.weights.Dirac, ...]:
    convolutions = any(row.tensor.ndim > 2 for row in sp.weights.matrices(net))
    return sp.weights.identity_shares(net) if convolutions else ()


def _by_kind(row: sp.weights.Symmetry) -> int:
    return list(sp.weights.KINDS).index(row.kind)


def _parts(here: Selection, found: epochs.Followed | None, kind: str, layers: tuple[str, ...]) -> None:
    """A chosen weight, its symmetric part and the rest; for square matrices the two simplest symmetric forms."""
    with st.container(horizontal=True):
        layer = choose("Layer", layers, "matrix", width=280)
        weight = sp.weights.find(here.net, layer).tensor
        tap = (0, 0)
        if kind == "channels" and weight.ndim > 2 and weight[0, 0].numel() > 1:
            high, wide = weight.shape[-2:] if weight.ndim > 3 else (1, weight.shape[2])
            tap = tuple(pick.number(f"Kernel {side}", key=f"tap-{side}", top=size - 1, default=size // 2)
                        for side, size in (("row", high), ("column", wide)))  # fmt: skip
    with st.container(horizontal=True):
        for title, picture in figures.parts(weight, kind, tap):
            wide = figures.shown_width(picture, 300, largest=24)
            show.picture(picture, f"{title} of {layer}", width=wide, caption=title)
    if kind == "channels":
        st.markdown("**The same matrix as free numbers of a symmetric layer**")
        with st.container(horizontal=True):
            for title, picture in figures.forms(figures.at_tap(weight, tap)):
                show.picture(picture, title, width=170, caption=title)
    if found is not None:
        st.subheader(f"{unmarked(layer)} over the run")
        rows = epochs.moments(here, found, layer)
        plot = over_epochs.symmetry_over_epochs(rows, layer, kind, found.here.label, found.unit)
        show.figure(plot, alt=f"Energy of the symmetry “{kind}” of {layer} over {len(rows)} checkpoints", height=300)
        epochs.left_out(rows, layer)
