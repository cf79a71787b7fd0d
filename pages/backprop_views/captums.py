"""captum's own map of what is asked, computed on the network that is open, beside ours on one scale."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.backprop_views import one_map
from pages.ui import cache, show
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.attribution import Attribution
from sp_core.second_opinion import Captums, captums, sentence


def asked() -> bool:
    """The toggle; nothing of captum runs before it is on."""
    return st.toggle(
        "Beside captum's own",
        key="captum",
        bind="query-params",
        help="captum is the library that most people compute attributions with. It is asked the same question with the "
        "same settings, on a copy of the network, and takes about as long as ours; it cannot be stopped on the way.",
    )


def column(
    here: Selection, goal: str, method: str, settings: tuple[tuple[str, Any], ...], view: str, ours: Attribution | None
) -> None:
    """What captum finds, on the scale of ours, and how they agree; ``ours`` is None where our method is not defined."""
    key = (*here.key, goal, method, settings)
    with st.spinner("captum computes …"):
        theirs = cache.answer("captum", key, lambda: captums(here.net, here.seen, goal, method, **dict(settings)))
    st.markdown(f"**{theirs.name}**")
    picture = _map(here, theirs, view, ours)
    st.markdown(unmarked(sentence(theirs, ours)))
    for note in theirs.notes:
        st.caption(note)
    if theirs.map is None:
        return
    written = "".join(f", {name}={value!r}" for name, value in settings)
    code = (
        f"import sp_core as sp\nfrom sp_core.second_opinion import captums\n\nnet = {here.code}\n"
        "image = net.view(sp.open_image('picture.png'))[None]\n"
        f"answer = captums(net, image, {goal!r}, {method!r}{written})"
    )
    numbers = {"map": theirs.map[0].numpy(force=True)}
    show.downloads(f"captum-{method}", picture=picture, numbers=numbers, code=code)


def _map(here: Selection, theirs: Captums, view: str, ours: Attribution | None) -> Any:
    """The picture, which is also returned; None where captum raised."""
    if theirs.map is None:
        return None
    values = theirs.map[0].numpy(force=True)
    end = ours and one_map.limit(theirs.method, ours.map[0].numpy(force=True), view)
    end = end or one_map.limit(theirs.method, values, view)  # a map of ours that is zero has no scale
    picture = one_map.picture(here.crop, theirs.method, values, view, end)
    words = one_map.ends(theirs.method, values, view, end) + (", the scale of ours" if ours else "")
    show.picture(picture, alt=f"The map of {theirs.name} on {here.image_name}", width="100%", caption=words)
    return picture
