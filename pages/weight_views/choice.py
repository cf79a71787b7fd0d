"""A choice among the layers of whatever network is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st


def choose(label: str, options: Sequence[str], key: str, width: int = 280) -> str:
    """A choice in the address bar; one kept from another network is dropped."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)
    return st.selectbox(label, options, key=key, bind="query-params", width=width)
