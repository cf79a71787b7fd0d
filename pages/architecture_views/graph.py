"""The drawing of an architecture: the whole at the left, one of its modules at the right."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import streamlit as st

from pages.architecture_views import click
from pages.ui import show
from sp_core.architecture import Architecture
from sp_core.figures import graph as figures
from sp_core.outline import Block, blocks

READING = """
From top to bottom: each box is a step, with what comes out of it (channels × height × width). Normalisation and
activations are written into the box of the layer they follow; equal boxes in a row are drawn once, with how many they
are. The bar at the bottom of a box is its share of all multiply-accumulates. Arcs are skips. Where a network works at
several resolutions in parallel, each has a column of its own.

The graph is read off one forward pass on empty tensors, below autograd, so it shows what really runs, however the
module is written.
"""


def draw(found: Architecture, key: tuple[Hashable, ...]) -> None:
    """The graph, and inside it."""
    st.subheader("How it is built")
    if found.graph is None:
        st.info(found.why, icon=":material/account_tree:")
        return
    costs = figures.table_of_costs(found.layers)
    whole = blocks(found.graph)
    modules = [name for name in found.graph.containers if _worth(name, found)]
    if not modules:
        _figure(whole, costs, "", found.macs, f"graph-{key}", 900)
    else:
        first = max(
            (block for block in whole if block.whole), key=lambda block: _macs(block, costs), default=None
        )  # the part that computes most
        start = first.name if first is not None and first.name in modules else modules[0]
        if st.session_state.setdefault("inside", st.query_params.get("inside", start)) not in modules:
            st.session_state["inside"] = start  # a module of the architecture chosen before
        left, right = st.columns([2, 3], gap="medium")
        with right:
            inside = st.selectbox("Inside the module", modules, key="inside")
            st.query_params["inside"] = inside
            _figure(blocks(found.graph, inside), costs, "", found.macs, f"graph-{key}-{inside}", 480)
        with left:
            st.markdown("**The whole network**")
            _figure(whole, costs, inside, found.macs, f"graph-{key}", 320)
    show.explain("How to read the drawing", READING, "made from the network itself")


def _worth(name: str, found: Architecture) -> bool:
    """Whether there is something to see in it: two steps or more."""
    assert found.graph is not None
    return sum(name in node.inside for node in found.graph.nodes) > 1


def _macs(block: Block, costs: dict[str, tuple[int, int]]) -> int:
    return sum(costs[name][1] for name in block.members if name in costs)


def _open(custom: list[Any]) -> None:
    if custom[0]:
        st.session_state["inside"] = custom[0]


def _figure(
    drawn: Sequence[Block], costs: dict[str, tuple[int, int]], chosen: str, total: int, key: str, width: int
) -> None:
    plot, height = figures.drawing(drawn, costs, chosen, width, total)
    click.figure(plot, figures.blocks_in_words(drawn), key, _open, height)
