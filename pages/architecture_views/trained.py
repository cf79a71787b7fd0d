"""The tables that this project trained itself, beside the published ones."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.architecture_views import click, one
from pages.ui import show
from pages.ui.text import sentence, unmarked
from sp_core import trained
from sp_core.errors import SpError
from sp_core.figures import architectures as figures


def found() -> list[trained.Table]:
    """Every table that can be read; of the others their sentences are shown."""
    tables = []
    for path in sorted(trained.FOLDER.glob("*.json")):
        try:
            tables.append(trained.read(path))
        except SpError as error:
            st.warning(sentence(str(error)), icon=":material/warning:")
    return tables


def draw() -> None:
    """Each table with its figure, its budget in words, and the published column."""
    tables = found()
    if not tables:
        st.info(
            "No table has been trained with this copy of the project: `assets/tables` is empty. "
            "Published errors are in the other views.",
            icon=":material/model_training:",
        )
        return
    for table in tables:
        _draw(table)


def _draw(table: trained.Table) -> None:
    st.subheader(unmarked(table.title))
    st.markdown(f"**{unmarked(table.data)}. {unmarked(table.in_words())}**")
    if table.source:
        st.caption(f"Stands beside: {unmarked(table.source)}")
    best = min(table.rows, key=lambda row: row.error)
    click.figure(
        figures.trained(table),
        alt=f"Test errors of {len(table.rows)} networks trained here; the least is {best.error:.2f} % of {best.label}.",
        key=f"trained-{table.name}",
        picked=one.open_point,
        height=150 + 42 * len(table.rows),
    )
    doubt = table.standard_error(best)
    if doubt is not None and len(best.runs) == 1:
        st.caption(
            f"Bars: the standard error of an error on {table.budget['test_images']:,} test images, about {doubt:.1f} "
            "points. Another seed differs by more, so rows that are this close are not told apart."
        )
    rows = [_row(row) for row in table.rows]
    formats = dict.fromkeys(("error here, %", "± (seeds)", "published, %"), "%.2f")
    formats |= dict.fromkeys(("parameters", "MACs"), "localized")
    columns: dict[str, Any] = {name: st.column_config.NumberColumn(format=how) for name, how in formats.items()}
    if all(row.spread is None for row in table.rows):
        columns["± (seeds)"] = None  # hidden
    if all(row.published_error is None for row in table.rows):
        columns["published, %"] = columns["published in"] = None
    st.dataframe(rows, hide_index=True, column_config=columns)
    show.downloads(f"trained-{table.name}", table=rows)


def _row(row: trained.Row) -> dict[str, Any]:
    seconds = [run.seconds for run in row.runs if run.seconds is not None]
    return {
        "row": row.label,
        "error here, %": row.error,
        "± (seeds)": row.spread,
        "seeds": len(row.runs),
        "published, %": row.published_error,
        "parameters": row.parameters,
        "MACs": row.macs,
        "seconds a run": round(sum(seconds) / len(seconds)) if seconds else None,
        "architecture": row.architecture,
        "options": " ".join(f"{key}={value}" for key, value in row.options.items()),
        "published in": row.published_source,
    }
