"""Patch indexes on pages: the one that is there, or one that grows while a person watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

import sp_core as sp
from pages.patch_views import data
from pages.ui import live, nav
from sp_core import nearest
from sp_core.figures import patches as figures
from sp_core.patches import PatchIndex, cache_folder

BUNDLED = nav.ROOT / "assets" / "indexes"
QUICK = 256  # images of a first index
FRAME = (6, 9, 64)  # channels, patches a channel and pixels a tile of the picture shown on the way


def choose(here: Any) -> tuple[str, PatchIndex | None]:
    """Pick a data set and how much of it; its name, and the index of the chosen network over it.

    The index is there at once where there is one, else it is built on the page; None while there is nothing to see yet.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = data.choose()
        images = data.dataset(source)
        found = index(here, source)
        wanted = choose_count(len(images), found, QUICK)
    if found is None or found.done < wanted:
        build(here.net, images, source, wanted, start=found is None)
        found = index(here, source)
    if found is None:
        st.info("There are no patches yet; press the button to look at the images.")
    return source, found


def build(net: Any, images: Any, source: str, count: int, start: bool) -> None:
    """Go through the first ``count`` images while one watches; stopped or not, what is there stays there.

    The features that the page of neighbours answers from are left on the way.
    """
    part, folder = sp.datasets.take(images, count), cache_folder(net, source)

    def make() -> Iterator[Any]:
        try:
            features = nearest.cache_folder(net, source, nearest.default_layers(net))
            return sp.build_patch_index(net, part, folder, features=features)
        except sp.SpError:  # those that are there are of more images, say; they must not keep one from the patches
            return sp.build_patch_index(net, part, folder)

    drawn: dict[str, Image.Image] = {}

    def frame(record: Any) -> Image.Image | None:
        if record.saved or not drawn:
            drawn["last"] = _so_far(net, part, folder)
        return drawn["last"]

    def text(record: Any) -> str:
        left = f", {record.remaining:.0f} seconds to go" if record.fresh else ""
        return f"{record.done:,} of {record.total:,} images{left}; the first channels so far:"

    live.run(
        make,
        key="index",
        settings=(str(folder), count),
        total=max(1, -(-count // (64 if max(net.input_size[1:]) <= 96 else 16))),
        draw=frame,
        text=text,
        alt="The strongest patches of the first channels so far",
        start=start,
        label=f"Look at {count:,} images",
    )


def _so_far(net: Any, images: Any, folder: Path) -> Image.Image:
    """The strongest patches of a few channels of the layer that the page shows."""
    found = PatchIndex(folder)
    layer = st.session_state.get("layer")
    layer = layer if layer in found.layers else default_layer(net, found)
    channels, columns, size = FRAME
    rows = [
        found.top(sp.Unit(layer, i), min(columns, found.top_count)) for i in range(channels)[: found.channels(layer)]
    ]
    names = [str(i) for i in range(len(rows))]
    return figures.channels_sheet(net, images, rows, names, size=size, columns=columns).image


def default_layer(net: Any, index: PatchIndex) -> str:
    """A convolution about half-way up: patches small enough to be cut, and more than edges."""
    maps = [name for name in index.layers if "Conv" in net.layer(name).kind] or list(index.layers)
    return maps[len(maps) // 2]


def choose_count(images: int, index: PatchIndex | None, quick: int) -> int:
    """How many images to look at: what there is already, or more."""
    held = index.total if index is not None else 0
    sizes = {min(n, images) for n in (quick, 1000, 2000, 5000, 10_000, 50_000, images)}
    options = sorted({n for n in sizes if n > held} | ({min(held, images)} if held else set()))
    if st.session_state.get("count") not in options:
        st.session_state.pop("count", None)
    if len(options) == 1:
        return options[0]
    return st.selectbox(
        "Images to look at",
        options,
        key="count",
        bind="query-params",
        format_func=lambda n: f"{n:,}" + (" (there already)" if index is not None and n <= index.done else ""),
        width=200,
    )


def choose_page(channels: int, rows: int) -> int:
    """Which sheet of ``rows`` channels, from 0; at first the one that holds the channel of the link."""
    pages = -(-channels // rows)
    if pages == 1:
        return 0
    if not 1 <= st.session_state.get("sheet", 1) <= pages:
        st.session_state.pop("sheet", None)
    linked = st.session_state.get("channel", st.query_params.get("channel", "0"))
    first = min(int(linked) // rows, pages - 1) if str(linked).isdigit() else 0

    def turn() -> None:
        st.session_state["channel"] = (st.session_state["sheet"] - 1) * rows

    return st.pagination(pages, default=first + 1, key="sheet", bind="query-params", on_change=turn) - 1


def facts(index: PatchIndex, layer: str, net: Any) -> str:
    """What a person must know of the sheet: field, dead channels, how many images, and whose."""
    height, width = index.field_size(layer)
    row = index.field(layer)
    whole = row is None or row["status"] not in {"complete", "partial"}
    lines = ["A unit sees the whole image." if whole else f"A unit sees {height}×{width} pixels."]
    dead = index.dead(layer)
    lines.append(f"{len(dead)} of {index.channels(layer)} channels were never above 0 in {index.images:,} images.")
    if row is not None and row.get("note"):
        lines.append(row["note"])
    if index.skipped:
        lines.append(f"{index.skipped} images could not be read and were passed over.")
    if net.classes is None or tuple(net.classes) != index.classes:
        lines.append(
            f"**{net.name} may have been trained on other images than these ({index.dataset['name']})**: their classes "
            "are not its own. The tiles show what drives its units most among them, which need not be what the units "
            "are for."
        )
    return " ".join(lines)


def index(here: Any, source: str) -> PatchIndex | None:
    """The largest index of the chosen network over ``source`` that there is: bundled, or built here."""
    found = [_read(folder, here.net) for folder in (_bundled(here, source), cache_folder(here.net, source)) if folder]
    return max((one for one in found if one), key=lambda one: one.images, default=None)


def _bundled(here: Any, source: str) -> Path | None:
    kind, _, name = here.source.partition(":")
    return BUNDLED / Path(name).name if kind == "bundled" and source == "textures" else None


def _read(folder: Path, net: Any) -> PatchIndex | None:
    file = folder / "index.json"
    if not file.is_file():
        return None
    found = _load(str(folder), file.stat().st_mtime_ns)
    return found if found.fits(net) else None


@st.cache_resource(max_entries=8, show_spinner=False)
def _load(folder: str, changed: int) -> PatchIndex:
    return PatchIndex(folder)
