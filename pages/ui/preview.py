"""The chosen picture, small, with the part that the network sees framed, and in words what was done to it."""

from __future__ import annotations

from typing import Any

import streamlit as st
from PIL import Image

from pages.ui import show
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.images import as_stored, channels_in_words

WIDE, HIGH = 180, 240  # CSS pixels; twice as many are sent, for sharp screens
DARK = 0.25  # a mean brightness below this is that of bright strokes on black


def draw(image: Image.Image, name: str, notes: tuple[str, ...], net: Any) -> None:
    """The picture with the network's crop framed; whole where there is no network, or only its weights are known."""
    from sp_core.figures.frame import framed

    box = net.crop_box(image) if net is not None and net.has_graph else None
    words = crop_in_words(image, net, box) if box else ""
    small = framed(image, box, (2 * WIDE, 2 * HIGH))
    show.picture(small, alt=f"The chosen picture: {name}. {words}".strip(), width=max(small.width // 2, 1))
    if words:
        st.caption(words)
    if notes:
        st.caption(f":material/info: {unmarked('; '.join(notes))}.")


def crop_in_words(image: Image.Image, net: Any, box: tuple[float, float, float, float]) -> str:
    """Which part of the picture the network sees, and at what size."""
    left, top, right, bottom = box
    _, height, width = net.input_size
    size = f"{width}×{height} pixels" + (" in grey" if net.input_size[0] < 3 else "")
    if right - left > image.width - 1 and bottom - top > image.height - 1:
        return f"The network sees all of it, at {size}."
    part, whole = f"{right - left:.0f}×{bottom - top:.0f}", f"{image.width}×{image.height}"
    return f"The network sees the framed {part} of {whole} pixels, at {size}."


def explain(here: Selection) -> None:
    """Below what the network sees: how that was made of the picture."""
    net = here.net
    channels, height, width = net.input_size
    words = [
        f"{unmarked(here.image_name)}: resized and cropped to {width}×{height} pixels.",
        channels_in_words(channels),
    ]
    if as_stored(here.image) is not here.image:
        words.append("Its values are those that the file stores: training pipelines do not apply colour profiles.")
    mean = float(here.seen.mean())
    if channels == 1 and net.mean and net.mean[0] < DARK < mean:
        usual = f"The mean of its training images is {net.mean[0]:.2f}, as of bright strokes on black"
        words.append(f"{usual}; here it is {mean:.2f}.")
    st.caption(" ".join(filter(None, words)))
