"""One architecture: what it is, its graph, its layers, and what is published of it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.architecture_views import graph
from pages.ui import cache, nav, show
from pages.ui.sidebar import NETWORK
from pages.ui.text import unmarked
from sp_core import architecture as made
from sp_core import zoo
from sp_core.counts import short
from sp_core.published import Correction, corrections_of, records

VIEW = "One architecture"
FIRST = "resnet50-root8"
PARAMETERS = ("architecture", "options", "inside")  # of the address
ELSEWHERE = ("receptive_fields.py", "filters.py", "feature_maps.py", "weights.py", "card.py")


def open_it(name: str, options: str = "") -> None:
    """Show the architecture ``name``: what a click on a point or a button does."""
    if name:
        st.session_state.update({"architecture": name, "options": options, "view": VIEW})
        st.session_state.pop("inside", None)


def open_point(custom: list[Any]) -> None:
    """The same for the custom data of a point: a name, which may be empty, and options."""
    open_it(str(custom[0] or ""), str(custom[1] or "") if len(custom) > 1 else "")


def correction(row: Correction) -> None:
    """What a slide says, what is right, and why."""
    st.markdown(
        f":material/edit_note: **{unmarked(row.where)}** says “{unmarked(row.says)}”. "
        f"Right: **{unmarked(row.right)}**. {unmarked(row.why)}"
    )


def draw() -> None:
    """The choice, then everything about it."""
    name, text = _choice()
    options = made.options_in(text)
    key = (name, *sorted((key, str(value)) for key, value in options.items()))
    with st.spinner(f"Counting {name} …"):
        found = cache.answer("architecture", key, lambda: made.describe(name, options))
    _facts(found)
    for row in corrections_of(name):
        correction(row)
    graph.draw(found, key)
    _layers(found)
    _published(name)
    _elsewhere(found)
    written = "".join(f", {part!r}: {value!r}" for part, value in options.items())[2:]
    show.downloads(
        f"architecture-{name}",
        table=_table(found, containers=True),
        code="import sp_core as sp\nfrom sp_core.architecture import describe\n\n"
        f"found = describe({name!r}{f', {{{written}}}' if options else ''})\n"
        "print(found.parameters, found.macs)\n"
        f"net = sp.Network(sp.zoo.create({name!r}), input_size={found.input_size})",
    )


def _choice() -> tuple[str, str]:
    """The name and the options as text; both are in the address, and are kept while other views are looked at."""
    kept = st.session_state.setdefault("architecture-kept", {})
    for key, first in (("architecture", FIRST), ("options", "")):
        st.session_state.setdefault(key, st.query_params.get(key) or kept.get(key, first))
    names, wanted = zoo.names(), str(st.session_state["architecture"])
    if wanted not in names:
        zoo.entry(wanted)  # of some families there are more than are listed; else a sentence with names that are close
        names = [*names, wanted]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Architecture", names, key="architecture", width=340)
        st.text_input(
            "Options",
            key="options",
            width=340,
            placeholder="classes=100 symmetry=triangular",
            help="key=value with spaces between; the line below says which there are.",
        )
    # By hand, since a control that code has set is not written into the address by Streamlit.
    for key in ("architecture", "options"):
        value = kept[key] = str(st.session_state[key])
        if value:
            st.query_params[key] = value
        else:
            st.query_params.pop(key, None)
    return kept["architecture"], kept["options"]


def _facts(found: made.Architecture) -> None:
    """What it is and what it costs."""
    st.subheader(unmarked(found.about))
    convs = sum(row.leaf and "Conv" in row.kind for row in found.layers)
    linear = sum(row.leaf and row.kind == "Linear" for row in found.layers)
    columns = st.columns(5)
    columns[0].metric("Parameters", short(found.parameters), help=f"{found.parameters:,}")
    columns[1].metric("MACs", short(found.macs), help=f"{found.macs:,} multiply-accumulates an image, without biases")
    columns[2].metric("Input", "×".join(map(str, found.input_size)))
    columns[3].metric("Convolutions", convs)
    columns[4].metric("Fully connected", linear)
    takes = ", ".join(f"{name} ({value})" if value else name for name, value in found.takes.items())
    given = ", ".join(f"{name}={value}" for name, value in found.options.items())
    st.caption(
        (f"Made with {unmarked(given)}. " if given else "")
        + (f"Options (and what they are when none is given): {unmarked(takes)}. " if takes else "It takes no options. ")
        + f"Exactly {found.parameters:,} parameters and {found.macs:,} multiply-accumulates"
        + (" by torch's rule" if found.status == "complete" else ", without operations that cannot be counted")
        + "; what is published below may be counted by another."
    )


def _table(found: made.Architecture, containers: bool) -> list[dict[str, Any]]:
    def pixels(extent: tuple[float, float] | None) -> str:
        return "" if extent is None else " × ".join(f"{side:g}" for side in extent)

    return [
        {
            "layer": row.name,
            "kind": row.kind,
            "output": " × ".join(map(str, row.shape)),
            "parameters": row.parameters,
            "MACs": row.macs,
            "share of MACs": row.macs / found.macs if found.macs else 0.0,
            "receptive field": pixels(row.field) or row.status,
            "stride": pixels(row.stride),
        }
        for row in found.layers
        if row.leaf or containers
    ]


def _layers(found: made.Architecture) -> None:
    st.subheader("Layers")
    containers = st.toggle("Modules that hold layers too", key="containers", bind="query-params")
    rows = _table(found, containers)
    st.dataframe(
        rows,
        hide_index=True,
        height=min(38 + 35 * len(rows), 560),
        column_config={
            "parameters": st.column_config.NumberColumn(format="localized"),
            "MACs": st.column_config.NumberColumn(format="localized"),
            "share of MACs": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        },
    )
    st.caption("In execution order. Receptive field and stride are in pixels of the input, height × width.")


def _published(name: str) -> None:
    found = [row for row in records() if row.network == name]
    if not found:
        return
    st.subheader("Published of it")
    rows: list[dict[str, Any]] = [
        {
            "as": row.name,
            "images": row.data,
            "top-1 error, %": row.top1_error,
            "top-5 error, %": row.top5_error,
            "parameters": row.parameters,
            "MACs": row.macs,
            "counted by": row.convention,
            "measured": row.protocol,
            "note": row.note,
            "source": row.source,
        }
        for row in found
    ]
    empty = [key for key in rows[0] if all(row[key] in (None, "") for row in rows)]
    count = st.column_config.NumberColumn(format="localized")
    st.dataframe(
        [{key: value for key, value in row.items() if key not in empty} for row in rows],
        hide_index=True,
        column_config={"parameters": count, "MACs": count},
    )


def _elsewhere(found: made.Architecture) -> None:
    """A button that chooses it in the sidebar, and links to the pages that then show it."""
    source = f"{found.elsewhere}@none" if found.elsewhere else f"zoo:{found.name}"
    st.subheader("On the other pages")
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.session_state.get(NETWORK) == source
        st.button(
            "Chosen in the sidebar" if chosen else f"Choose {source} in the sidebar",
            icon=":material/check:" if chosen else ":material/input:",
            disabled=chosen,
            on_click=lambda: st.session_state.__setitem__(NETWORK, source),
        )
        if chosen:
            for file in ELSEWHERE:
                nav.page_link(file)
    size = f"{max(4 * found.parameters / 1e6, 0.1):,.1f} MB"
    st.caption(
        f"With random weights, as it is made without options; they take {size} of this server's memory."
        if not found.options
        else "With random weights, and without the options above: the sidebar knows names only."
    )
