"""What is odd about the weights, as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.ui.text import unmarked
from sp_core.health import Finding, summary

BOXES = {"nan": st.error, "constant": st.warning, "batch norm": st.warning, "untrained": st.warning, "dead": st.info}
ICONS = {
    "nan": ":material/error:",
    "constant": ":material/horizontal_rule:",
    "batch norm": ":material/warning:",
    "untrained": ":material/casino:",
    "dead": ":material/visibility_off:",
}


def draw(found: Sequence[Mapping[str, str]]) -> None:
    """A line a kind, and every finding under it."""
    if not found:
        st.success(
            "Nothing odd was found: no NaN, no constant layer, no dead filter, none that looks untrained.",
            icon=":material/check_circle:",
        )
        return
    for kind, sentence in summary(Finding(**finding) for finding in found):
        BOXES[kind](unmarked(sentence), icon=ICONS[kind])
    if len(found) > 1:
        with st.expander(f"All {len(found)} findings", icon=":material/list:"):
            st.dataframe([dict(finding) for finding in found], hide_index=True)
