"""One feature map over the picture, and what is said of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.ui import nav, show
from pages.ui.sidebar import Selection
from sp_core.feature_maps import FeatureMaps, Scaling, seen_by_peak
from sp_core.figures import feature_maps as figures
from sp_core.figures.maps import short

WIDE = 448  # pixels of the enlarged picture


def first(net: Any, names: list[str]) -> int:
    """The layer to begin with: the first rectifier, whose maps read best; else the first layer."""
    kinds = {layer.name: layer.kind for layer in net.layers}
    return next((i for i, name in enumerate(names) if "LU" in kinds[name]), 0)


def namer(net: Any, found: FeatureMaps) -> Callable[[int], str]:
    """What is read out for a channel: number, mean and largest value; for an element its value, of logits the class."""
    flat = found.values.reshape(len(found.values), -1)
    means, tops = flat.mean(1).tolist(), flat.amax(1).tolist()
    last = not found.is_map and found.layer == net.layers[-1].name and len(flat) == net.class_count

    def say(index: int) -> str:
        if found.is_map:
            return f"channel {index}: mean {short(means[index])}, largest {short(tops[index])}"
        return f"{net.class_name(index) if last else f'element {index}'}: {short(means[index])}"

    return say


def facts(found: FeatureMaps) -> None:
    """How many there are, how large, and how many are silent on this picture."""
    shape, count = tuple(found.values.shape), len(found.values)
    words = f"{count} maps of {shape[1]}×{shape[2]}." if found.is_map else f"A vector of {count}."
    silent = len(found.silent)
    what = "maps are" if found.is_map else "elements are"
    words += f" {silent} of {count} {what} zero on this picture" + (" (dead here)." if silent else ".")
    signed = "Blue is below zero, white zero, red above." if found.signed else "Dark is zero, yellow the most."
    st.caption(f"{words} {signed if found.is_map else ''}")
    if silent:
        nav.page_link("patches.py", "Which channels are dead on every picture")


def draw(here: Selection, found: FeatureMaps, channel: int, scaling: Scaling) -> None:
    """The map enlarged over the picture, its maximum marked."""
    limit = float(found.limits(scaling)[channel])
    field = seen_by_peak(here.net, found, channel)
    enlarge = max(1, WIDE // max(found.image))
    y, x = found.peak(channel)
    top = short(float(found.values[channel, y, x]))
    st.subheader(f"Channel {channel} of {found.layer}")
    picture = figures.over(here.crop, found, channel, limit, field.clipped, enlarge)
    box = field.clipped
    words = f"Largest, {top}, at row {y}, column {x} of the map; framed: the {box.height}×{box.width} pixels it sees."
    show.picture(picture, alt=f"Channel {channel} over the picture. {words}", width="100%")
    st.caption(f"{words} Coloured red where the map is above zero" + (", blue below." if found.signed else "."))
    if not found.aligned:
        st.caption(
            "The units of this layer see the whole image, so that none has a place of its own: the map is spread over "
            "the picture."
        )
    show.picture(
        figures.alone(found, channel, limit),
        alt=f"Channel {channel} of {found.layer} alone",
        width=max(1, 224 // found.values.shape[2]) * found.values.shape[2],
        caption=f"The map alone: {figures.ends(found, limit)}",
    )
    show.downloads(f"feature-map-{found.layer}-{channel}", picture=picture)
