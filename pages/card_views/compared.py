"""The network beside a second checkpoint: what changed, layer by layer."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, networks, show
from pages.ui.sidebar import Selection, linked_select
from pages.ui.text import sentence, unmarked
from sp_core.errors import SpError
from sp_core.figures.changes import layer_bars

NOBODY = ""
KEPT = "compared-with"


def draw(here: Selection) -> None:
    """The second checkpoint's picker and, where one is chosen, the answer."""
    st.subheader("Compared with another checkpoint")
    if "other" not in st.session_state and KEPT in st.session_state:
        st.session_state["other"] = st.session_state[KEPT]
    options = [NOBODY, *(source for source in networks.sources() if source != here.source)]
    linked_select("Compare with", options, "other", lambda source: networks.label(source) if source else "nothing")
    other = st.session_state["other"] or NOBODY
    st.session_state[KEPT] = other
    if not other:
        st.caption(
            "Choose an earlier epoch, a fine-tuned copy or an untrained network of the same architecture, and see "
            "which layers moved. Tensors are matched by name; nothing is run."
        )
        return
    try:
        second = networks.load(other)
        key = (here.net.identity, second.identity, here.net.name, second.name)
        found = cache.answer("compare", key, lambda: sp.compare(here.net, second))
    except SpError as error:  # the rest of the card is about the first
        st.error(sentence(str(error)), icon=":material/error:")
        return
    for line in found.sentences():
        st.markdown(f"- {unmarked(line)}")
    show.figure(
        layer_bars(found),
        alt=f"Relative change of {len(found.layers)} layers from {found.first} to {found.second}. "
        + " ".join(found.sentences()),
        height=380,
        key="compared",
    )
    first, last = unmarked(networks.label(here.source)), unmarked(networks.label(other))
    st.caption(
        f"a is {first}, b is {last}: the length of the difference of all learnt numbers of a layer, over their length "
        "in a. Running means and variances of batch normalisation are counted apart (statistics)."
    )
    rows = found.rows()
    with st.expander(f"All {len(rows)} tensors", icon=":material/table:"):
        st.dataframe(rows, hide_index=True)
    show.downloads(
        f"compare-{found.first}-{found.second}",
        table=rows,
        code=f"import sp_core as sp\n\nfirst = {here.code}\nsecond = {networks.code(other)}\n"
        "found = sp.compare(first, second)\nprint(found.frozen, found.rows()[0])",
    )
