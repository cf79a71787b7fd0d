"""What the network says of the picture: the likeliest classes as bars, or why there are none."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, show
from pages.ui.sidebar import Selection


def bars(here: Selection, height: int) -> None:
    """The five likeliest classes of the current picture."""
    if not here.net.class_count:
        st.info("This network does not end in a vector of class scores.")
        return
    from sp_core.figures.bars import probabilities

    chances = cache.answer("likeliest", here.key, lambda: likeliest(here))
    if not chances:
        st.error("The scores are NaN or infinite: there is no answer to show.", icon=":material/error:")
        return
    show.figure(probabilities(chances), alt=", ".join(f"{name} {p:.0%}" for name, p in chances), height=height)


def likeliest(here: Selection, count: int = 5) -> list[tuple[str, float]]:
    """The ``count`` likeliest classes with their probabilities; none where the scores are not numbers."""
    chances = sp.predict(here.net, here.seen).float().softmax(1)[0]
    if not bool(chances.isfinite().all()):
        return []
    best = chances.topk(min(count, len(chances)))
    return [(here.net.class_name(int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True)]
