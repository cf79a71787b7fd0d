"""A whole network in small layers: ranks by a budget or by hand, what it costs, and the file that loads back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, live, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from pages.weight_views import measured
from sp_core.figures import laboratory as figures
from sp_core.figures.weights import before_and_after

ANY = "any"
HONEST = (
    ":material/info: **Nothing is trained here.** The small layers are the nearest to the trained weights, so what is "
    "lost is lost: what it costs in accuracy is measured below, on images. A few epochs of training after the cut "
    "recover much of it, and a network that is trained with small layers from the start (Ioannou) loses less still."
)
ALLOTTED = """
Each layer gets the scheme and rank that minimise `−log(1 − error²) + price · MACs`, one price for all layers, the
lowest that keeps to the budget. The product of the kept energies `1 − error²` goes with the accuracy of the whole
network; a sum of errors would rather destroy one layer. What is promised in multiply-accumulates is not always kept
in milliseconds: small layers are bound by memory and by the number of calls, so both are shown.

Parameters and multiply-accumulates of a layer are without its bias; the shared kernels of `basis` count once,
though the file holds a copy for every channel. The file is a plain state dict (`conv.0.weight`, `conv.1.weight` …):
`sp.load` sees from the shapes which layers were factored. Keep the card (`.json`) beside it: it says how the
network is fed.
"""
SOURCES = (
    "Zhang, Zou, He and Sun 2016, arXiv:1505.06798 (rank selection); Jaderberg, Vedaldi and Zisserman 2014; "
    "Ioannou et al., ICLR 2016; Kim et al. 2016"
)


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """Curves of every layer, a plan, what it costs, what the network then says, and the file."""
    if not here.net.has_graph:
        st.info(
            "To compress a network its multiply-accumulates are counted and images are run through it; of this file "
            "only the weights are known. The view “Low rank” rebuilds one layer at a time without.",
            icon=":material/account_tree:",
        )
        return
    try:
        total = len(sp.weights.rebuildable(here.net))
    except sp.SpError as error:  # to have none is no mistake
        st.info(unmarked(str(error)), icon=":material/grid_off:")
        return
    found, finished = live.run(
        lambda: _curves(here.net),
        key="every-curve",
        settings=here.net.identity,
        total=total,
        draw=lambda step: None,
        text=lambda step: f"{len(step[0])} of {total} layers decomposed",
        alt="",
        start=sp.weights.cost(here.net) < 2e9,
        label=f"Decompose {total} layers",
    )
    if found is None or not finished:
        st.caption(
            "Every layer is first written at every rank by every scheme; then a budget of multiply-accumulates is "
            "shared out among the layers, and the small network can be measured and taken home."
        )
        return
    places, left = found
    for layer, why in left.items():
        st.caption(f":material/block: {unmarked(layer)} stays as it is: {unmarked(why)}")
    plan = _plan(here, places)
    if not plan:
        st.info("No layer is factored: lower the budget, or give a layer a scheme and a rank in the table.")
        return
    st.markdown(HONEST)
    _first_layer(here, plan)
    _consequences(here, plan)
    show.explain("How ranks are allotted, and what is counted", ALLOTTED, SOURCES)
    show.provenance(here, layers_factored=len(plan))
    _file(here, plan, figures.plan_table(places, plan))


def _curves(net: Any) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Each layer with its curves, and why some have none."""
    places: dict[str, Any] = {}
    left: dict[str, str] = {}
    for layer in sp.weights.rebuildable(net):
        try:
            place = sp.weights.site(net, layer)
            curves = sp.weights.curves(place)
            # A plan needs sizes alone, and this stays in the viewer's session: the float64 weights need not.
            sizes = place.weight.new_zeros(1, 1, 1, 1).expand(place.weight.shape)
            places[layer] = (replace(place, weight=sizes), curves)
        except sp.SpError as error:
            left[layer] = str(error)
        yield dict(places), dict(left)


def _plan(here: Selection, places: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The plan by the budget, changed by hand in the table, and what it costs."""
    schemes = list(dict.fromkeys(curve.scheme for _, curves in places.values() for curve in curves))
    with st.container(horizontal=True):
        budget = st.slider(
            "Budget: % of multiply-accumulates", 5, 95, value=50, step=5, key="budget", bind="query-params", width=320
        )
        scheme = choose("Scheme", [ANY, *schemes], "plan-scheme", width=160)
    able = {layer: (place, _only(curves, scheme)) for layer, (place, curves) in places.items()}
    able = {layer: row for layer, row in able.items() if row[1]}
    try:
        start = sp.weights.allot(able, budget / 100) if able else {}
    except sp.SpError as error:  # a budget that no plan keeps; the slider is above
        st.info(unmarked(str(error)), icon=":material/savings:")
        return {}
    st.markdown("**Every layer: change a scheme or a rank by hand** (“–” leaves the layer as it is)")
    edited = st.data_editor(
        figures.plan_table(places, start),
        key=f"plan-{here.net.fingerprint}-{budget}-{scheme}",
        hide_index=True,
        disabled=["layer", "weight"],
        column_order=["layer", "weight", "scheme", "rank"],
        column_config={
            "scheme": st.column_config.SelectboxColumn(options=[figures.WHOLE, *schemes], required=True),
            "rank": st.column_config.NumberColumn(min_value=1, step=1),
        },
    )
    plan = figures.plan_of(edited)
    table = figures.plan_table(places, plan)
    _totals(here, table)
    st.markdown("**What each layer computes: before (grey) and after**")
    show.figure(figures.plan_bars(table), alt=f"Multiply-accumulates of {len(table)} layers", height=360)
    st.markdown("**What each layer loses and costs**")
    st.dataframe(
        table,
        hide_index=True,
        height=min(360, 38 + 35 * len(table)),
        column_order=["layer", "error", "parameters", "of", "MACs", "of MACs"],
        column_config={"error": st.column_config.NumberColumn(format="%.3f")},
    )
    return plan


def _only(curves: list[Any], scheme: str) -> list[Any]:
    return [curve for curve in curves if scheme in (ANY, curve.scheme)]


def _totals(here: Selection, table: list[dict[str, Any]]) -> None:
    """Parameters and multiply-accumulates of the whole network."""
    counts = cache.answer("complexity", (here.net.identity,), lambda: sp.complexity(here.net))
    columns = st.columns(4)
    columns[0].metric("Layers factored", f"{sum(row['rank'] is not None for row in table)} of {len(table)}")
    for column, name, before, now, was in (
        (columns[1], "Parameters", counts.parameters, "parameters", "of"),
        (columns[2], "MACs", counts.macs, "MACs", "of MACs"),
    ):
        after = before - sum(row[was] - row[now] for row in table)
        column.metric(name, f"{after / 1e6:,.2f} M", f"{after / before:.1%} of {before / 1e6:,.2f} M", "off",
                      delta_arrow="off")  # fmt: skip
    worst = max(table, key=lambda row: row["error"])
    columns[3].metric("Largest error", f"{worst['error']:.3f}", worst["layer"], "off", delta_arrow="off")


def _first_layer(here: Selection, plan: dict[str, tuple[str, int]]) -> None:
    """The filters that read the image, as trained and in small layers, where they are among the factored ones."""
    first = next((row.name for row in here.net.layers if row.leaf and row.kind == "Conv2d"), None)
    if first not in plan:
        return
    place = sp.weights.site(here.net, first)
    key = (here.net.identity, first, *plan[first])
    row = cache.answer("factored", key, lambda: sp.weights.factor(place, *plan[first]))
    for column, (title, sheet) in zip(st.columns(2, gap="large"), before_and_after(here.net, place, row), strict=True):
        with column:
            show.picture(sheet.image, f"Filters of {first}, {title}", caption=f"{first}, {title}", width="100%")


@st.cache_resource(max_entries=2, show_spinner=False)
def _compressed(_net: Any, identity: Any, plan: tuple[tuple[str, tuple[str, int]], ...]) -> Any:
    del identity  # in the cache's key, since Streamlit cannot hash a network
    return sp.weights.compress(_net, dict(plan))


def _made(here: Selection, plan: dict[str, tuple[str, int]]) -> Any:
    """The compressed network, made when it is first asked for; hold torch's turn."""
    return _compressed(here.net, here.net.identity, tuple(plan.items()))


def _consequences(here: Selection, plan: dict[str, tuple[str, int]]) -> None:
    """What the compressed network says on a data set, and how long it takes."""
    st.subheader("The compressed network, measured")
    settings = (here.net.identity, tuple(plan.items()))
    left, right = st.columns(2, gap="large")
    with left:
        measured.on_images(here, "compressed-trial", settings, lambda: _made(here, plan).network.module)
    with right:
        st.markdown("**One image through the whole network, on this machine**")
        measured.milliseconds("compressed-timing", (*settings, here.image_key), lambda: _timing(here, plan))


def _timing(here: Selection, plan: dict[str, tuple[str, int]]) -> sp.weights.Timing:
    inputs = here.net.normalise(here.net.check_images(here.seen))
    return sp.weights.timing(here.net.module, _made(here, plan).network.module, inputs)


def _file(here: Selection, plan: dict[str, tuple[str, int]], table: list[dict[str, Any]]) -> None:
    """The checkpoint and its card, the table, and the lines that make and load them."""

    def made(ask: str) -> bytes:
        with cache.turn():
            small = _made(here, plan)
            return small.file() if ask == "file" else json.dumps(small.card(), indent=1).encode()

    st.subheader("Take it with you")
    with st.container(horizontal=True):
        st.download_button(
            "Checkpoint (.safetensors)",
            lambda: made("file"),
            "compressed.safetensors",
            type="primary",
            icon=":material/download:",
        )
        st.download_button(
            "Its card (.json)", lambda: made("card"), "compressed.json", "application/json", icon=":material/badge:"
        )
    st.caption("Put both into one folder; then these lines make the same files and load them again:")
    code = sp.weights.compression.code(plan, here.code)
    st.code(code, language="python")
    show.downloads("compression", table=table)
