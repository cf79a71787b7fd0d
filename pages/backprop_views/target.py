"""What a picture is made for: the predicted class, another class, or a unit of a layer. Every choice is in the link."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.ui import pick

KINDS = {"predicted": "the predicted class", "class": "another class", "unit": "a unit of a layer"}


def choose(net: Any, predicted: int | None) -> str:
    """Draw the controls; return the target as text, ``"258"`` or ``"layer4:20@3,5"``.

    ``predicted`` is the class the network predicts, or None when it has no class scores: then only units are offered.
    """
    kinds = list(KINDS) if predicted is not None else ["unit"]
    if st.session_state.get("of") not in kinds:
        st.session_state.pop("of", None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control(
            "Signal of",
            kinds,
            format_func=lambda key: KINDS[key],
            default=kinds[0],
            key="of",
            bind="query-params",
            required=True,
        )
        if kind == "unit":
            return _unit(net)
        return str(_class(net, predicted or 0) if kind == "class" else predicted)


def _class(net: Any, predicted: int) -> int:
    labels = [f"{index} · {net.class_name(index)}" for index in range(net.class_count)]
    if st.session_state.get("class") not in labels:
        st.session_state.pop("class", None)
    return labels.index(st.selectbox("Class", labels, index=predicted, key="class", bind="query-params", width=320))


def _unit(net: Any) -> str:
    layers = {layer.name: layer for layer in net.layers if not layer.channels_last}
    names = list(layers)
    if st.session_state.get("layer") not in names:
        st.session_state.pop("layer", None)
    maps = [name for name in names if layers[name].is_map] or names
    name = st.selectbox(
        "Layer",
        names,
        index=names.index(maps[-1]),
        key="layer",
        bind="query-params",
        width=280,
        help=pick.left_out(net),
    )
    layer = layers[name]
    channel = pick.number("Channel", key="channel", top=layer.channels - 1)
    if not layer.is_map or min(layer.output_shape[1:]) < 1:
        return f"{name}:{channel}"
    own = st.toggle(
        "at a chosen position",
        key="placed",
        bind="query-params",
        help="Otherwise the position where the channel is strongest on this image.",
    )
    if not own:
        return f"{name}:{channel}"
    _, height, width = layer.output_shape
    y = pick.number("Row", key="row", top=height - 1, default=height // 2)
    x = pick.number("Column", key="column", top=width - 1, default=width // 2)
    return f"{name}:{channel}@{y},{x}"
