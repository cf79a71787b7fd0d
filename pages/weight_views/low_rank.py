"""One layer rebuilt at a rank: error, cost, pictures, and what the network then does."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from pages.weight_views import measured
from sp_core.figures import weights as figures

SCHEMES = """
| scheme | the layer becomes | how it is found |
|---|---|---|
| svd | k×k to r channels, then 1×1 to all | SVD of `[out, in·k·k]`: the best at its rank |
| separable | k×1 to r channels, then 1×k to all | Jaderberg's scheme 2: SVD of `[in·k, k·out]`: the best at its rank |
| basis | the same r separable kernels on every channel, then 1×1 to all | Jaderberg's scheme 1, by two SVDs |
| tucker | 1×1 to r·in/out channels, k×k to r, 1×1 to all | Tucker-2 by higher-order SVD |

The error is `‖W − Ŵ‖ / ‖W‖`; its square is the energy that is lost. The replacement is a sequence of small
convolutions without anything between them. Multiply-accumulates promise more than milliseconds keep: small layers
are bound by memory, so measure. Ioannou trains such layers from the start, which costs far less accuracy than
cutting a trained layer down; a few epochs of training after the cut recover much of it.
"""
SOURCES = (
    "Jaderberg, Vedaldi and Zisserman 2014; Ioannou et al., Training CNNs with low-rank filters, ICLR 2016; "
    "Kim et al. 2016; Eckart and Young 1936"
)


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """One layer rebuilt at a rank: error, cost, pictures, effect."""
    graph = here.net.has_graph
    try:
        layers = sp.weights.rebuildable(here.net)
    except sp.SpError as error:  # to have none is no mistake
        st.info(unmarked(str(error)), icon=":material/grid_off:")
        return
    with st.container(horizontal=True):
        layer = choose("Layer", layers, "site", width=280)
        place = sp.weights.site(here.net, layer) if graph else sp.weights.site_alone(here.net, layer)
        curves = cache.answer("curves", (here.net.identity, layer), lambda: sp.weights.curves(place))
        scheme = choose("Scheme", [row.scheme for row in curves], "scheme", width=160)
        curve = next(row for row in curves if row.scheme == scheme)
        rank = _rank(len(curve.errors), curve.rank_within(0.3))
        axis = _axis(graph)
    key = (here.net.identity, layer, scheme, rank)
    row = cache.answer("factored", key, lambda: sp.weights.factor(place, scheme, rank))
    _numbers(place, row, graph)
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Error of every scheme**")
        show.figure(figures.errors(place, curves, row, axis), alt=f"Error of {layer} against {axis}", height=400)
        if min(place.weight.shape[2:]) > 1:
            blocks = figures.building_blocks(row, place)
            show.picture(
                blocks.image, "Building blocks", width=320, caption=f"the first {blocks.count} building blocks"
            )
    with right:
        _pictures(here, place, row)
    if graph:
        _consequences(here, place, row)
    else:
        st.caption(
            ":material/account_tree: Multiply-accumulates, milliseconds, and what the network then says need a forward "
            "pass, and of this file only the weights are known. The error and the parameters are exact without."
        )
    show.explain("The four schemes", SCHEMES, SOURCES)
    show.provenance(here, layer=layer, scheme=scheme, rank=rank)
    _downloads(here, row, curve)


def _axis(graph: bool) -> str:
    """What the error is drawn against; without a graph there are no multiply-accumulates."""
    axes = [name for name in figures.AXES if graph or name != "MACs"]
    if st.session_state.get("axis") not in axes:
        st.session_state.pop("axis", None)
    return st.segmented_control("Against", axes, default=axes[-1], key="axis", bind="query-params", required=True)


def _numbers(place: sp.weights.Site, row: sp.weights.Factored, graph: bool) -> None:
    """What is lost and what it costs."""
    columns = st.columns(4)
    columns[0].metric("Relative error", f"{row.error:.3f}")
    columns[1].metric("Energy kept", f"{1 - row.error**2:.1%}")
    share = f"{row.parameters / place.parameters:.2f} × original"
    columns[2].metric("Parameters", f"{row.parameters:,}", share, "off", delta_arrow="off")
    if graph:
        share = f"{row.macs / place.macs:.2f} × original"
        columns[3].metric("MACs", f"{row.macs / 1e6:,.2f} M", share, "off", delta_arrow="off")
    else:
        columns[3].metric("MACs", "–", "need a forward pass", "off", delta_arrow="off")


def _downloads(here: Selection, row: sp.weights.Factored, curve: sp.weights.Curve) -> None:
    """The rebuilt weight, its parts, the whole curve, and the code."""
    site = "site" if here.net.has_graph else "site_alone"
    lost = zip(curve.errors.tolist(), curve.parameters.tolist(), curve.macs.tolist(), strict=True)
    show.downloads(
        f"low-rank-{row.layer}-{row.scheme}-{row.rank}",
        numbers={"weight": row.weight.numpy(), **{f"part{i}": part.numpy() for i, part in enumerate(row.kernels)}},
        table=[{"rank": i + 1, "error": e, "parameters": p, "macs": m} for i, (e, p, m) in enumerate(lost)],
        code=f'import sp_core as sp\n\nnet = {here.code}\nplace = sp.weights.{site}(net, "{row.layer}")\n'
        f'row = sp.weights.factor(place, "{row.scheme}", {row.rank})\nprint(row.error, row.layers)',
    )


def _rank(top: int, default: int) -> int:
    """The rank slider, brought into the range of this layer and scheme."""
    if top == 1:
        return 1
    kept = st.session_state.get("rank")
    if kept is not None:
        st.session_state["rank"] = min(max(int(kept), 1), top)
        return st.slider("Rank", 1, top, key="rank", bind="query-params", width=240)
    return st.slider("Rank", 1, top, value=default, key="rank", bind="query-params", width=240)


def _pictures(here: Selection, place: sp.weights.Site, row: sp.weights.Factored) -> None:
    """The layer before and after: its filters, or its matrix where the kernels have no shape to look at."""
    if min(place.weight.shape[2:]) < 2:
        st.info("A 1×1 or linear layer has no kernels to look at; its matrix before and after:")
        for title, weight in (("before", place.weight), (f"rank {row.rank}", row.weight)):
            show.picture(figures.matrix(weight[:, :, 0, 0]), f"The matrix {title}", caption=title, width=320)
        return
    for title, sheet in figures.before_and_after(here.net, place, row):
        show.picture(sheet.image, f"Filters of {place.layer}, {title}", caption=title, width="100%")


def _consequences(here: Selection, place: sp.weights.Site, row: sp.weights.Factored) -> None:
    """What the network says with the layer rebuilt; accuracy and milliseconds on demand."""
    st.subheader("The network with this layer rebuilt")
    changed = sp.weights.replaced(here.net, place.layer, row.layers)
    settings = (*here.key, place.layer, row.scheme, row.rank)
    one, two, three = st.columns([2, 3, 2], gap="large")
    with one:
        effect = cache.answer("effect", settings, lambda: sp.weights.effect(here.net, changed, here.seen))
        st.metric(
            f"P({here.net.class_name(effect.before)}) on this image",
            f"{effect.after_chance:.3f}",
            f"{effect.after_chance - effect.before_chance:+.3f} from {effect.before_chance:.3f}",
            **measured.moved(effect.after_chance - effect.before_chance),
        )
        same = effect.after == effect.before
        st.caption(
            "The first choice stays." if same else f"The first choice is now {here.net.class_name(effect.after)}."
        )
    with two:
        measured.on_images(here, "trial", settings, lambda: changed)
    with three:
        measured.milliseconds("timing", settings, lambda: sp.weights.time_layers(here.net, place, row, here.seen))
