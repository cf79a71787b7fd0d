"""Picking a tile of a sprite, or a position on a picture: by mouse, by keyboard, or by number.

The picture is one image with one highlight. It has the role of a grid for assistive technology: Tab reaches it, the
arrow keys move, Enter picks, and the tile under the cursor is read out. Number inputs beside it do the same, are in
the address bar, and are what tests and links drive.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st
from PIL import Image

from sp_core.figures.sprite import Sprite
from sp_core.images import png

_CSS = """
.sheet { position: relative; display: inline-block; line-height: 0; border-radius: 2px; max-width: 100%;
  outline-offset: 3px; cursor: pointer; }
.sheet:focus-visible { outline: 3px solid var(--st-primary-color); }
img { display: block; max-width: 100%; }
img.pixels { image-rendering: pixelated; }
.mark { position: absolute; box-sizing: border-box; pointer-events: none; display: none; border-radius: 2px; }
.chosen { border: 3px solid #e69f00; box-shadow: 0 0 0 1.5px #000; }
.cursor { border: 2px dashed var(--st-text-color); }
.read { font: 0.9rem/1.4 var(--st-font); color: var(--st-text-color); min-height: 1.4em; padding-top: 4px; }
"""

_JS = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const sheet = parentElement.querySelector(".sheet");
  const image = parentElement.querySelector("img");
  const chosen = parentElement.querySelector(".chosen");
  const cursor = parentElement.querySelector(".cursor");
  const read = parentElement.querySelector(".read");
  const { columns, count, tile, gap, size, labels } = data;
  let at = data.selected;
  if (image.dataset.source !== data.image_key) {
    image.src = data.image;
    image.dataset.source = data.image_key;
  }
  image.alt = data.alt;
  image.className = data.pixels ? "pixels" : "";
  image.style.width = data.width + "px";
  sheet.setAttribute("aria-label", data.alt);
  const name = (i) => (labels && labels[i]) || data.noun + " " + i;
  const place = (mark, i) => {
    const row = Math.floor(i / columns), column = i % columns;
    mark.style.display = i >= 0 && i < count ? "block" : "none";
    mark.style.left = (100 * column * (tile[1] + gap)) / size[0] + "%";
    mark.style.top = (100 * row * (tile[0] + gap)) / size[1] + "%";
    mark.style.width = (100 * tile[1]) / size[0] + "%";
    mark.style.height = (100 * tile[0]) / size[1] + "%";
  };
  const look = (i) => { at = i; place(cursor, i); read.textContent = name(i); };
  const take = (i) => { look(i); place(chosen, i); setTriggerValue("picked", i); };
  const under = (event) => {
    const box = image.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * size[0];
    const y = ((event.clientY - box.top) / box.height) * size[1];
    const column = Math.floor(x / (tile[1] + gap)), row = Math.floor(y / (tile[0] + gap));
    const i = row * columns + column;
    return column >= 0 && column < columns && row >= 0 && i < count ? i : -1;
  };
  place(chosen, data.selected);
  read.textContent = data.selected >= 0 ? name(data.selected) : "";
  sheet.onmousemove = (event) => {
    const i = under(event);
    if (i >= 0) read.textContent = name(i);
  };
  sheet.onmouseleave = () => { read.textContent = at >= 0 ? name(at) : ""; };
  sheet.onclick = (event) => {
    const i = under(event);
    if (i >= 0) take(i);
  };
  sheet.onblur = () => { cursor.style.display = "none"; };
  sheet.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = Math.max(at, 0) + step;
      if (next >= 0 && next < count) look(next);
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      look(event.key === "Home" ? 0 : count - 1);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      take(Math.max(at, 0));
    }
  };
}
"""

_HTML = """
<div>
  <div class="sheet" role="application" tabindex="0">
    <img><div class="mark cursor"></div><div class="mark chosen"></div>
  </div>
  <div class="read" aria-live="polite"></div>
</div>
"""

_picker = st.components.v2.component("sp_picker", html=_HTML, css=_CSS, js=_JS)


def sprite(
    sheet: Sprite,
    *,
    key: str,
    label: str,
    alt: str,
    labels: Sequence[str] | None = None,
    order: Sequence[int] | None = None,
    width: int | None = None,
) -> int:
    """Show ``sheet`` and let a person pick a tile; return what is picked (0 at first).

    Args:
        sheet: the tiles.
        key: of the number in session state and in the address bar.
        label: what a tile is, for the number input and the read-out: ``"Filter"``.
        alt: the sheet in one sentence.
        labels: one line a tile, read out under the cursor.
        order: when the tiles are sorted, the number of each tile (``order[i]`` is what tile ``i`` shows); the value
            picked, shown and linked is then that number.
        width: of the sheet in CSS pixels; by default the largest whole enlargement up to 720.
    """
    numbers = list(range(sheet.count)) if order is None else [int(number) for number in order]
    place = st.container()
    # The number comes first: it is what reads the address bar. It is shown below the sheet.
    chosen = 0 if sheet.count < 2 else number(label, key=key, top=max(numbers))
    words = {"labels": list(labels) if labels is not None else None, "noun": label, "alt": alt}
    if width is None:
        width = sheet.image.width * max(1, 720 // sheet.image.width)
    selected = numbers.index(chosen) if chosen in numbers else -1
    with place:
        _mount(sheet, (key,), words, selected=selected, width=width, value=lambda index: numbers[index])
    return chosen


def position(
    image: Image.Image, rows: int, columns: int, *, keys: tuple[str, str], label: str, alt: str, width: int = 448
) -> tuple[int, int]:
    """Show ``image`` and let a person pick a cell of a grid of ``rows × columns`` over it; return ``(y, x)``.

    ``keys`` name the row and the column in session state and in the address bar; at first the centre is picked.
    """
    place = st.container()
    with st.container(horizontal=True):
        y = number("Row", key=keys[0], top=rows - 1, default=rows // 2)
        x = number("Column", key=keys[1], top=columns - 1, default=columns // 2)
    cell = max(1, width // columns)
    shown = image.resize((columns * cell, rows * cell), Image.Resampling.NEAREST)
    grid = Sprite(shown, columns, (cell, cell), 0, rows * columns)
    labels = [f"{label} row {i // columns}, column {i % columns}" for i in range(rows * columns)]
    words = {"labels": labels, "noun": label, "alt": alt}
    chosen = y * columns + x
    with place:
        _mount(grid, keys, words, selected=chosen, width=shown.width, value=lambda index: divmod(index, columns))
    return y, x


def choose(label: str, options: Sequence[Any], key: str, **more: Any) -> Any:
    """A pick list in the address bar; a choice kept from another network is dropped."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)
    return st.selectbox(label, options, key=key, bind="query-params", **more)


def by_key(key: str, labels: Mapping[str, str]) -> None:
    """Let a link name an option of the widget that follows by its key as well: ``method=lrp`` for ``method=LRP``.

    The address is put right and the page starts over, for a bound widget takes labels only and drops all else.
    """
    asked = st.query_params.get(key, "")
    if labels.get(asked, asked) != asked and key not in st.session_state:
        st.query_params[key] = labels[asked]
        st.rerun()


def left_out(net: Any) -> str | None:
    """What a picker of layers says on the layers that it cannot offer; None where it offers all."""
    last = [layer for layer in net.layers if layer.channels_last]
    if not last:
        return None
    shape = " × ".join(map(str, last[0].output_shape))
    return (
        f"{len(last)} of {len(net.layers)} layers are left out: they keep their channels last ({last[0].name} puts out "
        f"{shape}), so they are no stack of maps."
    )


def number(label: str, *, key: str, top: int, default: int = 0) -> int:
    """A number input from 0 to ``top`` in the address bar; a number kept from another layer is brought into range."""
    if top <= 0:
        return 0
    kept = st.session_state.get(key)
    if kept is not None and not 0 <= int(kept) <= top:
        st.session_state[key] = min(max(int(kept), 0), top)
    if key in st.session_state:
        return int(st.number_input(label, 0, top, key=key, bind="query-params", step=1, width=160))
    return int(st.number_input(label, 0, top, value=default, key=key, bind="query-params", step=1, width=160))


def _mount(
    sheet: Sprite,
    keys: tuple[str, ...],
    words: dict[str, Any],
    *,
    selected: int,
    width: int,
    value: Callable[[int], Any],
) -> None:
    """Mount the component; ``value`` turns a tile's index into what is written under ``keys``."""
    slot = "picker-" + "-".join(keys)

    def picked() -> None:
        index = st.session_state[slot].picked
        # The browser's word is checked: it is a number of a tile or it is nothing.
        if isinstance(index, (int, float)) and 0 <= int(index) < sheet.count:
            values = value(int(index))
            for name, number in zip(keys, values if isinstance(values, tuple) else (values,), strict=True):
                st.session_state[name] = int(number)

    source, digest = _uri(sheet.image)
    _picker(
        key=slot,
        data={
            **words,
            "image": source,
            "image_key": digest,
            "columns": sheet.columns,
            "count": sheet.count,
            "tile": list(sheet.tile),
            "gap": sheet.gap,
            "size": [sheet.image.width, sheet.image.height],
            "selected": selected,
            "width": width,
            "pixels": width > sheet.image.width,
        },
        on_picked_change=picked,
    )


def _uri(image: Image.Image) -> tuple[str, str]:
    from pages.ui import cache

    data = png(image)
    return "data:image/png;base64," + base64.b64encode(data).decode(), cache.digest(data)
