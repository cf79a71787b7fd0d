"""Published errors against what the networks cost."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.architecture_views import click, one, trained
from pages.ui import show
from sp_core.counts import short
from sp_core.figures import architectures as figures
from sp_core.published import CONVENTION_WORDS, DATA, Record, records

ALL = "All"
READING = """
Each point is one published error of one network, with what that network costs: down and left is better. Both axes of
costs are logarithmic. **Colour is the lecture, shape the table** it stands in; *hollow* marks were measured otherwise
than with one plain crop, so their height is not to be compared. Stars are networks trained by this project, with the
budget that the hover says.

Papers count differently, and most figures that “do not reproduce” were counted by another rule. A count called
**exact** comes out to the integer when this project counts the architecture by the rule of its source; **counted here**
means that the source prints none; **as published** that no architecture stands behind it.
"""


def draw() -> None:
    """Controls, the two panels, the table of everything in them."""
    with st.container(horizontal=True):
        data = st.segmented_control("Images", DATA, default=DATA[0], key="data", bind="query-params", required=True)
        which = "top-1"
        if data == "ImageNet":
            which = st.segmented_control(
                "Error", ["top-1", "top-5"], default="top-1", key="error", bind="query-params", required=True
            )
        lecture = st.segmented_control(
            "Lecture", [ALL, *figures.LECTURES], default=ALL, key="lecture", bind="query-params", required=True
        )
    shown = [one for one in records() if one.data == data and one.error(which) is not None]
    shown = [one for one in shown if lecture in (ALL, one.lecture)]
    if not shown:
        st.info(f"The lecture of {lecture} shows no {which} error on {data}.", icon=":material/info:")
        return
    tables = [table for table in trained.found() if table.dataset == data]
    plot = figures.cost_chart(shown, which, tables)
    families = len({(one.lecture, one.family) for one in shown})
    click.figure(
        plot,
        alt=f"{which} error on {data} of {len(shown)} published networks against their multiply-accumulates and their "
        "parameters; the table below has the numbers.",
        key=f"costs-{data}-{which}-{lecture}",
        picked=one.open_point,
        height=560 + 30 * -(-families // 3),
    )
    table = _table(shown, which)
    st.caption(
        f"{len(shown)} published {which} errors on {data}, each with its source in the hover and in the table. "
        "A double click on the legend shows one family alone."
    )
    with st.expander(f"All {len(shown)} with their sources", icon=":material/table:"):
        st.dataframe(table, hide_index=True)
    show.downloads(f"errors-{data}-{which}", table=table)
    rules = "\n".join(f"- `{name}`: {words}" for name, words in CONVENTION_WORDS.items())
    show.explain("What you are looking at", READING + "\n" + rules, "the source of each record is in the table")


def _table(shown: list[Record], which: str) -> list[dict[str, Any]]:
    return [
        {
            "name": record.name,
            f"{which} error, %": record.error(which),
            "parameters": record.parameters,
            "MACs": record.macs,
            "about": f"{short(record.parameters or 0)}, {short(record.macs or 0)}",
            "counted by": record.convention,
            "exact": ", ".join(record.exact),
            "counted here": ", ".join(record.counted),
            "lecture": record.lecture,
            "family": record.family,
            "architecture": record.network,
            "measured": record.protocol,
            "note": record.note,
            "source": record.source,
        }
        for record in shown
    ]
