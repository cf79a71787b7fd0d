"""The page table, and the guard that every page calls first.

On a fresh server a deep link (``/filters``) runs the page's file *without* ``app.py``, because the folder is called
``pages``. :func:`ensure` notices that, declares the page table (which switches Streamlit to it) and starts over.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

import streamlit as st

from pages.ui import boot

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "": [
        ("home.py", "Start", ":material/home:", "What is loaded, and where to begin"),
        ("card.py", "Identity card", ":material/badge:", "What this network is, and whether its weights are sound"),
    ],
    "Look inside": [
        ("filters.py", "First-layer filters", ":material/grid_view:", "What the first layer looks for"),
        ("feature_maps.py", "Feature maps", ":material/layers:", "What every channel says about the picture"),
        ("patches.py", "Maximal patches", ":material/apps:", "The patches that drive a unit most"),
        ("neighbours.py", "Neighbours", ":material/hub:", "Which images are alike, in pixels and in features"),
        ("backprop.py", "Backprop and attributions", ":material/undo:", "Which pixels a decision rests on"),
        ("synthesis.py", "Ascent and DeepDream", ":material/auto_awesome:", "Images made to drive a unit"),
    ],
    "Structure": [
        ("architectures.py", "Architectures", ":material/schema:", "What networks cost, and how they are built"),
        ("receptive_fields.py", "Receptive fields", ":material/center_focus_strong:", "How far each unit can see"),
        ("weights.py", "Weight matrices", ":material/table_chart:", "Spectra, low rank and symmetry"),
    ],
}
# Pages that also work where only the weights are known.
WITHOUT_GRAPH = ("card.py", "filters.py", "weights.py", "architectures.py")

_routed: ContextVar[bool] = ContextVar("routed", default=False)


def build() -> Any:
    """Declare the page table; return the page that the address names."""
    table = {
        section: [
            st.Page(
                ROOT / "pages" / file,
                title=f"{icon} {title}",  # an `icon=` would also become the tab's icon, fetched from the web
                help=help_text,
                url_path=None if file == "home.py" else Path(file).stem,
                default=file == "home.py",
            )
            for file, title, icon, help_text in rows
        ]
        for section, rows in PAGES.items()
    }
    return st.navigation(table)


def run() -> None:
    """What ``app.py`` does: the frame, the sidebar, then the page, whose mistakes become sentences."""
    page = build()
    st.set_page_config(
        page_title=f"{page.title.split(': ')[-1]} · Structural Priors",
        page_icon=str(ROOT / "assets" / "icon.png"),
        layout="wide",
    )
    boot.warm_up()
    from pages.ui import show, sidebar

    show.style()
    _routed.set(True)
    sidebar.draw()
    show.guarded(page.run)


def ensure() -> None:
    """First line of every page: start over inside the frame when the page was opened without it."""
    if not _routed.get():
        build()
        st.rerun()


def page_link(file: str, label: str | None = None) -> None:
    """A link to another page that keeps the network and the image."""
    rows = {name: (title, icon) for section in PAGES.values() for name, title, icon, _ in section}
    title, icon = rows[file]
    st.page_link(ROOT / "pages" / file, label=label or title, icon=icon)
