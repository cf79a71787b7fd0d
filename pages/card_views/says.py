"""What the network says of the picture, and the classes it chooses from."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, show
from pages.ui.sidebar import Selection


def draw(here: Selection) -> None:
    """The crop beside the bars."""
    net = here.net
    left, right = st.columns([2, 3])
    with left:
        show.picture(here.crop, alt=f"The crop of {here.image_name} that {net.name} is fed with", width="100%")
    with right:
        if not net.class_count:
            st.info("This network does not end in a vector of class scores.")
            return
        from sp_core.figures.bars import probabilities

        chances = cache.answer("card-top", here.key, lambda: top(here))
        if not chances:
            st.error("The scores are NaN or infinite: there is no answer to show.", icon=":material/error:")
            return
        show.figure(probabilities(chances), alt=", ".join(f"{name} {p:.0%}" for name, p in chances), height=260)


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


def top(here: Selection, count: int = 5) -> list[tuple[str, float]]:
    """The ``count`` likeliest classes with their probabilities; none where the scores are not numbers."""
    chances = sp.predict(here.net, here.seen).float().softmax(1)[0]
    if not bool(chances.isfinite().all()):
        return []
    best = chances.topk(min(count, len(chances)))
    return [(here.net.class_name(int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True)]
