"""How the network is fed, and the controls with which a person who knows better says so."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.ui import cache, networks
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.checkpoints import by_hand as texts
from sp_core.errors import SpError

WORDS = {
    "imagenet": "ImageNet",
    "cifar10": "CIFAR-10",
    "pytorch-cifar": "CIFAR-10 (pytorch-cifar)",
    "mnist": "MNIST",
    "half": "0.5 / 0.5",
    "none": "none: [0, 1]",
    "own": "own numbers",
}
COMPLAINT = "fed-complaint"  # what was wrong with the last thing said, shown once


def controls(here: Selection) -> None:
    """Input size, normalisation, class names; what is said goes into the address and to every page."""
    net, said = _current(here), networks.by_hand(here.source)
    if complaint := st.session_state.pop(COMPLAINT, None):
        st.error(complaint, icon=":material/error:")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        most = max(networks.MOST_SIDE, *net.input_size[1:])
        _number(here, "Height", net.input_size[1], most, help="Pixels that the network is fed with.")
        _number(here, "Width", net.input_size[2], most)
        _number(
            here,
            "Resized to",
            min(net.resize, 2 * most),
            2 * most,
            help="The shorter side of the picture, in pixels, before the centre is cut out.",
        )
    options = [*texts.usual(net.input_size[0]), "own"]
    written = said.get("norm") or texts.written(net.mean, net.std)
    chosen = written if written in options else "own"
    key = _key(here, "norm")
    st.session_state[key] = chosen
    st.selectbox(
        "Normalisation", options, key=key, format_func=WORDS.get, on_change=_normalise, args=(here,), width=260
    )
    if chosen == "own":
        with st.container(horizontal=True):
            for what, values, plain in (("Mean", net.mean, 0.0), ("Std", net.std, 1.0)):
                key = _key(here, what)
                st.session_state[key] = texts.listed(values or (plain,))
                st.text_input(what, key=key, on_change=_own_numbers, args=(here,), help="One number, or one a channel.")
    st.file_uploader(
        "Class names",
        type=["txt", "json"],
        key=_key(here, "file"),
        on_change=_take_names,
        args=(here,),
        help='One name a line, or JSON: a list, {"0": "tench"}, {"0": ["n01440764", "tench"]} or {"tench": 0}.',
    )
    st.button(
        "Reset to what was found",
        icon=":material/undo:",
        disabled=not any(name in said for name in networks.FEEDING),
        on_click=_reset,
        args=(here.source,),
        key=_key(here, "reset"),
    )


def _key(here: Selection, what: str) -> str:
    return f"fed-{what}-{cache.digest(here.source.encode())}"


def _number(here: Selection, label: str, value: int, most: int, **more: Any) -> None:
    key = _key(here, label)
    st.session_state[key] = int(value)
    st.number_input(label, 1, most, key=key, step=1, on_change=_resize, args=(here, label), width=130, **more)


def _current(here: Selection) -> Any:
    """The network as it is fed now; as it was found where what was said of it does not fit."""
    try:
        return here.net
    except SpError:
        return here.found


def _resize(here: Selection, changed: str) -> None:
    found, net = here.found, _current(here)
    value = int(st.session_state[_key(here, changed)])
    if changed == "Resized to":
        usual = net.fed(resize=None).resize
        networks.say(here.source, resize=str(value) if value != usual else None)
        return
    height, width = (value, net.input_size[2]) if changed == "Height" else (net.input_size[1], value)
    written = f"{height}" if height == width else f"{height}x{width}"
    same = (height, width) == tuple(found.input_size[1:])
    networks.say(here.source, input=None if same else written, resize=None)


def _normalise(here: Selection) -> None:
    chosen, net = st.session_state[_key(here, "norm")], _current(here)
    own = f"{texts.listed(net.mean or (0,))}/{texts.listed(net.std or (1,))}"
    _say_normalisation(here, own if chosen == "own" else chosen)


def _own_numbers(here: Selection) -> None:
    channels = here.found.input_size[0]
    try:
        both = [texts.numbers(st.session_state[_key(here, what)], channels, what.lower()) for what in ("Mean", "Std")]
    except SpError as error:
        st.session_state[COMPLAINT] = str(error)
        return
    _say_normalisation(here, "/".join(map(texts.listed, both)))


def _say_normalisation(here: Selection, text: str) -> None:
    found = here.found
    was = (found.mean and tuple(found.mean), found.std and tuple(found.std))
    same = texts.normalisation(text, found.input_size[0]) == was
    # The numbers that were found are no news, unless a person now vouches for what was a guess.
    networks.say(here.source, norm=None if same and "normalisation" not in found.guesses else text)


def _take_names(here: Selection) -> None:
    file = st.session_state.get(_key(here, "file"))
    if file is None:
        return
    try:
        data = file.getvalue()
        names = texts.class_names(data, file.name)
        here.found.fed(classes=names)
    except SpError as error:
        st.session_state[COMPLAINT] = str(error)
        return
    networks.class_names()[cache.digest(data)] = (file.name, names)
    networks.say(here.source, names=cache.digest(data))


def _reset(source: str) -> None:
    networks.say(source, **dict.fromkeys(networks.FEEDING))


def draw(here: Selection) -> None:
    """Where the class names come from, and the controls behind a button."""
    if names := networks.class_names().get(networks.by_hand(here.source).get("names", "")):
        st.caption(f":material/tune: The class names are those of {unmarked(names[0])}.")
    if missing := networks.missing_names(here.source):
        st.caption(f":material/warning: {missing}")
    if complaint := st.session_state.pop(COMPLAINT, None):
        st.error(complaint, icon=":material/error:")
    with st.popover("Change how it is fed", icon=":material/tune:"):
        controls(here)


def mend(here: Selection) -> None:
    """The controls in the open, where what was said by hand is what keeps the card from being drawn."""
    if any(name in networks.by_hand(here.source) for name in networks.FEEDING):
        with st.container(border=True):
            st.markdown("**How it is fed**")
            controls(here)
