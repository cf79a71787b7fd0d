"""How a page shows things: titles, pictures that keep their pixels, figures, explanations, downloads, mistakes."""

from __future__ import annotations

import base64
import html
import io
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from pages.ui.sidebar import Selection
from pages.ui.text import sentence
from sp_core.errors import NeedsGraph, SpError
from sp_core.images import png

STYLE = """
<style>
.stMainBlockContainer { padding: 3.2rem 2.5rem 4rem 2.5rem; max-width: 1500px; }
[data-testid=stMetricValue] { font-size: 1.6rem; }
img.sp-pixels { image-rendering: pixelated; display: block; max-width: 100%; }
img.sp-smooth { display: block; max-width: 100%; }
.sp-lead { font-size: 1.1rem; max-width: 62rem; margin: -0.4rem 0 0.6rem 0; opacity: 0.85; }
[data-testid=stPageLink] p { white-space: normal; overflow: visible; }
figure.sp { margin: 0 0 0.4rem 0; }
figure.sp figcaption { font-size: 0.9rem; opacity: 0.8; padding-top: 0.2rem; }
</style>
"""


def style() -> None:
    """The few lines of CSS that Streamlit has no setting for."""
    st.html(STYLE)


def guarded(run: Callable[[], Any]) -> None:
    """Run a page: a person's mistake becomes its sentence, a fault of ours an apology; never a traceback."""
    try:
        run()
    except NeedsGraph as error:
        from pages.ui import nav

        st.info(sentence(str(error)), icon=":material/account_tree:")
        with st.container(horizontal=True):
            for file in nav.WITHOUT_GRAPH:
                nav.page_link(file)
    except SpError as error:
        st.error(sentence(str(error)), icon=":material/error:")
    except Exception as error:
        logging.getLogger(__name__).exception("a page failed")
        st.error(
            f"This page failed ({type(error).__name__}); that is a fault of the program, not yours. "
            "The details are in the server's log; other pages and your choices are as they were.",
            icon=":material/bug_report:",
        )


def title(text: str, lead: str) -> None:
    """The page's name and one sentence on what it shows."""
    st.title(text)
    st.html(f'<p class="sp-lead">{html.escape(lead)}</p>')


def data_uri(image: Image.Image, quality: int | None = None) -> str:
    """The picture as a data URI: PNG, or JPEG of ``quality`` where speed matters more than exact pixels."""
    if quality is None:
        data = png(image)
    else:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture_html(
    image: Image.Image, alt: str, width: int | str | None = None, caption: str | None = None, quality: int | None = None
) -> str:
    """A picture as HTML. Enlarged pictures keep their pixels; reduced ones are smoothed."""
    wide = image.width if width is None else width
    css = f"width:{wide}px" if isinstance(wide, int) else f"width:{wide}"
    enlarged = not isinstance(wide, int) or wide > image.width
    name = "sp-pixels" if enlarged else "sp-smooth"
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="sp"><img class="{name}" style="{css}" alt="{html.escape(alt, quote=True)}" '
        f'src="{data_uri(image, quality)}">{below}</figure>'
    )


def picture(image: Image.Image, alt: str, width: int | str | None = None, caption: str | None = None) -> None:
    """Show a picture pixel by pixel (``st.image`` would send a lossy JPEG). ``width`` in CSS pixels, or ``"100%"``."""
    st.html(picture_html(image, alt, width, caption))


def figure(plot: Any, alt: str, key: str | None = None, height: int | None = None) -> None:
    """Show a plotly figure on a transparent ground, in letters that a projector can carry."""
    plot.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_size=14, margin={"t": 40, "r": 28}
    )
    plot.update_xaxes(tickfont_size=14, title_font_size=14)
    plot.update_yaxes(tickfont_size=14, title_font_size=14)
    if height:
        plot.update_layout(height=height)
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}
    st.plotly_chart(plot, key=key, alt=alt, config=config)


def explain(heading: str, text: str, source: str) -> None:
    """What one is looking at, in plain words, with where it comes from."""
    with st.expander(heading, icon=":material/menu_book:"):
        st.markdown(text)
        st.caption(f"Source: {source}")


def provenance(here: Selection, **settings: Any) -> None:
    """One line that says what the pictures above were made of."""
    parts = [here.net.name, f"weights `{here.net.fingerprint}`", f"image {here.image_name}"]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value is not None]
    st.caption(" · ".join(parts))


def downloads(
    name: str,
    *,
    picture: Image.Image | Callable[[], Image.Image] | None = None,
    numbers: Mapping[str, Any] | None = None,
    table: Sequence[Mapping[str, Any]] | None = None,
    code: str | None = None,
    text: tuple[str, str] | None = None,
) -> None:
    """Buttons for the picture (PNG), the numbers (npz), the table (CSV), and the Python that makes it again.

    ``text`` is one more file: its name, whose ending is the button's label, and its content.
    """
    with st.container(horizontal=True):
        if picture is not None:
            st.download_button("PNG", lambda: _png(picture), f"{name}.png", "image/png", icon=":material/image:")
        if numbers is not None:
            st.download_button("Numbers (.npz)", lambda: _npz(numbers), f"{name}.npz", icon=":material/data_array:")
        if table is not None:
            st.download_button("Table (.csv)", lambda: _csv(table), f"{name}.csv", "text/csv", icon=":material/table:")
        if text is not None:
            ending = text[0].rpartition(".")[2].upper()
            st.download_button(ending, text[1], text[0], icon=":material/description:")
        if code is not None:
            with st.popover("Python", icon=":material/code:"):
                st.code(code, language="python")


def _png(image: Image.Image | Callable[[], Image.Image]) -> bytes:
    return png(image() if callable(image) else image)


def _npz(numbers: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    # numpy's own writer takes names as keywords, which cannot hold "conv1.weight"; an .npz is a zip of .npy files.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in numbers.items():
            entry = io.BytesIO()
            np.save(entry, np.asarray(values), allow_pickle=False)
            archive.writestr(f"{name.replace('/', '_')}.npy", entry.getvalue())
    return buffer.getvalue()


def _csv(table: Sequence[Mapping[str, Any]]) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else ["empty"])
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()
