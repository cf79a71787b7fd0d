"""What the network says of the picture, and the classes it chooses from."""

from __future__ import annotations

import streamlit as st

from pages.ui import says, show
from pages.ui.sidebar import Selection


def draw(here: Selection) -> None:
    """The crop beside the bars."""
    net = here.net
    left, right = st.columns([2, 3])
    with left:
        show.picture(here.crop, alt=f"The crop of {here.image_name} that {net.name} is fed with", width="100%")
    with right:
        says.bars(here, height=260)


def classes(here: Selection) -> None:
    """The names of the classes in a table that can be searched."""
    names = here.net.classes
    if not here.net.class_count:
        st.caption("None.")
    elif names is None:
        st.caption(f"{here.net.class_count:,} outputs; their names are not known, so they are shown by number.")
    else:
        number = {"class": st.column_config.NumberColumn(width="small", format="plain")}
        rows = [{"class": i, "name": name} for i, name in enumerate(names)]
        st.dataframe(rows, hide_index=True, height=240, column_config=number)
        st.caption("Point at the table for the magnifying glass that searches it.")
