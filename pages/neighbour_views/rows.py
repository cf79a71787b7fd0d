"""Rows of neighbours: one a space, nearest first, each with its class and distance."""

from __future__ import annotations

import html
from typing import Any

import streamlit as st
from PIL import Image

from pages.ui import cache, show
from sp_core.figures import neighbours as figures
from sp_core.nearest import PIXELS, Features, Neighbours

SIDE = 84  # pixels of a picture: nine in a row of the page
SAME = "outline: 3px solid #009e73; outline-offset: 2px;"


def pictures(images: Any, numbers: tuple[int, ...]) -> list[Image.Image]:
    """Small pictures of images of the data set."""
    return [
        cache.answer("neighbour", (SIDE, images.fingerprint, i), lambda i=i: figures.thumbnail(images.picture(i), SIDE))
        for i in numbers
    ]


def draw(images: Any, held: Features, found: Neighbours, label: int | None) -> None:
    """The neighbours in one space; those of class ``label`` are outlined and say so."""
    name = "Pixels" if found.space == PIXELS else found.space
    cells, same = [], 0
    for i, picture in enumerate(pictures(images, found.images)):
        mine = label is not None and label >= 0 and found.labels[i] == label
        same += mine
        words = figures.caption(found, i, held.classes)
        body = show.picture_html(picture, f"Neighbour {i + 1} in {name}: {words}", picture.width)
        below = "<br>".join(html.escape(part) for part in words.split(" · ")) + (" ✓" if mine else "")
        frame = f"width: {picture.width}px; height: {picture.height}px; {SAME if mine else ''}"
        cells.append(f'<div style="width: {SIDE + 4}px"><div style="{frame}">{body}</div><small>{below}</small></div>')
    known = label is not None and label >= 0
    st.markdown(f"**{name}**" + (f" · {same} of {len(cells)} of the same class" if known else ""))
    css = "display: flex; flex-wrap: wrap; gap: 10px 8px; padding: 4px; line-height: 1.35"
    st.html(f'<div style="{css}">{"".join(cells)}</div>')
