"""What the two views share: which layer, and how large a network is."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

import sp_core as sp
from pages.ui.pick import choose, left_out


def choose_layer(net: sp.Network, names: Sequence[str], key: str) -> str:
    """One of ``names`` that has units; at first one about two thirds of the way up.

    No ``format_func``: the address bar would hold what it makes of the name, and links name the layer.
    """
    last = {layer.name for layer in net.layers if layer.channels_last}
    names = [name for name in names if name not in last]
    first = sp.synthesis.default_layer(net) if any(layer.is_map for layer in net.layers) else names[0]
    index = names.index(first) if first in names else 0
    return choose("Layer", names, key, index=index, width=280, help=left_out(net))


def is_small(net: sp.Network) -> bool:
    """Whether several pictures take about a second."""
    return max(net.input_size[1:]) <= 96


def forget_of_another(net: sp.Network, view: str, keys: Sequence[str]) -> None:
    """Drop choices whose usual value depends on the network when another one is chosen; those of a link are kept."""
    seen = f"{view} of"
    if st.session_state.get(seen, net.identity) != net.identity:
        for key in keys:
            st.session_state.pop(key, None)
    st.session_state[seen] = net.identity
