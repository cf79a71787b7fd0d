"""How symmetric the trained weights are, against random ones, in every form, and what making them so costs."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from pages.weight_views import measured
from sp_core.figures import epochs as over_epochs
from sp_core.figures import laboratory
from sp_core.figures import weights as figures

MEANING = (
    "Zagoruyko's symmetric layers constrain `W` to `Ŵ = Ŵᵀ` and halve its parameters. Here a trained weight is asked "
    "how symmetric it is by itself: the share of `‖W‖²` that lies in the symmetric weights. A random weight has the "
    "share that the marks show. Left–right symmetric kernels are even (bars, blobs); edges are odd and fall **below** "
    "random; smooth kernels are above it for every motion.\n\n"
    "A symmetric layer can be written by free numbers *v* in many ways; the pictures show the nearest Ŵ of each "
    "way, and its v: tied numbers stand where an entry first reads one, and are white where one repeats. "
    "*Error* is `‖W − Ŵ‖ / ‖W‖` of the whole weight.\n\n"
    "Projecting makes every layer that can have it symmetric and leaves all else; nothing is trained again."
)
SOURCE = "Hu, Zagoruyko and Komodakis, Exploring weight symmetry in deep neural networks, 2018, arXiv:1812.11027"
FORMS_OF = ("channels", "transpose")  # the symmetries by which layers are written
LARGEST_FORM = 512  # channels: the eigenvectors of a matrix are computed for every form that needs them


def draw(here: Selection, found: epochs.Followed | None) -> None:
    """Symmetry energies against random ones, a weight, its parts and forms, how they moved, and the projection."""
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
        _projected(here, kind)
    show.explain("What you are looking at", MEANING, SOURCE)
    show.provenance(here, symmetry=kind)
    code = f"import sp_core as sp\n\nnet = {here.code}\nprint(sp.weights.symmetries(net))"
    show.downloads("symmetry", table=figures.records(rows), code=code)


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
    if kind in FORMS_OF:
        _forms(here, layer, kind, tap)
    if found is not None:
        st.subheader(f"{unmarked(layer)} over the run")
        rows = epochs.moments(here, found, layer)
        plot = over_epochs.symmetry_over_epochs(rows, layer, kind, found.here.label, found.unit)
        show.figure(plot, alt=f"Energy of the symmetry “{kind}” of {layer} over {len(rows)} checkpoints", height=300)
        epochs.left_out(rows, layer)


def _forms(here: Selection, layer: str, kind: str, tap: tuple[int, int]) -> None:
    """Every symmetric form of the weight: its free numbers v, and the weight Ŵ that they give."""
    weight = sp.weights.find(here.net, layer).tensor
    if len(weight) > LARGEST_FORM:
        st.caption(
            f"The forms of a symmetric layer are shown up to {LARGEST_FORM} channels; {layer} has {len(weight)}."
        )
        return
    inside = kind != "channels"
    own = weight if inside else figures.at_tap(weight, tap)[:, :, None, None]
    key = (here.net.identity, layer, kind, tap)
    rows = cache.answer("forms", key, lambda: laboratory.forms(own, inside))
    st.markdown("**Every form of a symmetric layer: its free numbers v, and the nearest weight Ŵ that they give**")
    with st.container(horizontal=True):
        for row in rows:
            with st.container(border=True, width=290):
                st.markdown(f"**{row.name}:** {row.kept:,} numbers, error {row.error:.3f}")
                st.caption(f"`{row.formula}`")
                with st.container(horizontal=True):
                    for title, picture in row.pictures:
                        wide = figures.shown_width(picture, 110, 110, 24)
                        show.picture(picture, f"{title} of {row.name}; {layer}", width=wide, caption=title)


def _projected(here: Selection, kind: str) -> None:
    """What the network says when every layer that can is made symmetric."""
    st.subheader("Every layer made symmetric")
    if not here.net.has_graph:
        st.caption(":material/account_tree: What the network then says needs a forward pass; only weights are known.")
        return
    settings = (here.net.identity, kind)
    last = measured.on_images(
        here,
        "projected-trial",
        settings,
        lambda: sp.weights.projected(here.net, kind).module,
        f"Project on “{kind}”, and try",
    )
    if last is not None:
        st.caption("Projected once, not trained again; a network that is trained symmetric from the start loses less.")
