"""The part that measures one unit: its gradient with these weights, and with random ones."""

from __future__ import annotations

import contextlib

import streamlit as st

from pages.ui import cache, show
from sp_core import effective_field as effective
from sp_core.errors import SpError
from sp_core.figures import fields as figures
from sp_core.network import Network


def draw(net: Network, layer: str, position: tuple[int, int], count: int) -> None:
    """Measure the unit at ``position`` of ``layer`` over ``count`` textures and draw what was found."""

    def measure() -> dict[str, effective.EffectiveField]:
        images = effective.textures(net, count)
        found = {"these weights": effective.effective_field(net, layer, images, position=position)}
        with contextlib.suppress(SpError):  # weights that have no rule to be drawn by
            drawn = effective.initialised(net, seed=0)
            found["random weights"] = effective.effective_field(drawn, layer, images, position=position)
        return found

    with st.spinner("Measuring …"):
        fields = cache.answer("effective", (net.identity, layer, *position, count), measure)
    zoom = max(1, 360 // max(net.input_size[1:]))
    *pictures, curve = st.columns([1, 1, 2])
    for column, (name, field) in zip(pictures, fields.items(), strict=False):
        with column:
            st.markdown(f"**{name.capitalize()}**")
            words = figures.energy(field)
            show.picture(figures.measured(field, zoom), alt=f"Gradient of the unit, {name}: {words}", width="100%")
            st.caption(words)
    with curve:
        if "random weights" not in fields:
            st.caption(f"Some weights of {net.name} have no rule by which they are drawn, so none are drawn anew.")
        show.figure(figures.profile(fields), alt="Energy of the gradient along x beside Gaussians of the same σ")
    show.downloads(
        f"effective-field-{net.name}-{layer}",
        picture=figures.measured(fields["these weights"], zoom),
        numbers={name: field.energy.numpy() for name, field in fields.items()},
    )
