"""A figure whose points open something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st


def figure(plot: Any, alt: str, key: str, picked: Callable[[list[Any]], None], height: int | None = None) -> None:
    """Show ``plot`` as :func:`pages.ui.show.figure` does; a click calls ``picked`` with the point's custom data."""
    plot.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_size=14, margin={"t": 40})
    plot.update_xaxes(tickfont_size=14, title_font_size=14)
    plot.update_yaxes(tickfont_size=14, title_font_size=14)
    if height:
        plot.update_layout(height=height)
    # Words that are part of a drawing are as dark as those of the page; the theme's are those of axes.
    ink = "#fafafa" if st.context.theme.type == "dark" else "#1c1e26"
    plot.update_traces(textfont_color=ink, selector=lambda trace: "text" in (getattr(trace, "mode", None) or ""))
    plot.update_traces(textfont_color=ink, selector={"type": "bar"})

    def selected() -> None:
        points = st.session_state[key].selection.points
        if points and points[0].get("customdata"):
            picked(list(points[0]["customdata"]))

    st.plotly_chart(
        plot, key=key, alt=alt, on_select=selected, selection_mode="points",
        config={"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}},
    )  # fmt: skip
