"""ILSVRC by year, as the lectures show it."""

from __future__ import annotations

import streamlit as st

from pages.architecture_views import click, one
from pages.ui import show
from sp_core.figures import architectures as figures
from sp_core.published import corrections_of, ilsvrc


def draw() -> None:
    """The winners with their depth and a person's error; then top-1 accuracies by year."""
    found = ilsvrc()
    first, last = found.winners[0], found.winners[-1]
    st.markdown("**Classification of ImageNet's 1000 classes: top-5 error of each year, and how deep the network is**")
    click.figure(
        figures.by_year(found),
        alt=f"Top-5 error falls from {first.top5_error:g} % in {first.year} to {last.top5_error:g} % in {last.year}, "
        f"below a person's {found.human:g} % from 2015 on, while depth grows from 8 to 152 layers.",
        key="ilsvrc",
        picked=one.open_point,
        height=600,
    )
    st.caption(
        f"Source: {first.source}; a person's error: {found.human_source}. The light bars are no deep networks. Several "
        "entries are ensembles, so the bars are not errors of one network."
    )
    st.subheader("Top-1 accuracy of single networks")
    click.figure(
        figures.development(found),
        alt=", ".join(f"{row.name} {row.top1_accuracy:g} %" for row in found.development),
        key="development",
        picked=one.open_point,
        height=380,
    )
    st.caption(f"Source: {found.development[0].source}.")
    for wrong in corrections_of("densenet264"):
        one.correction(wrong)
    table = [
        {"year": row.year, "who": row.who, "network": row.name, "top-5 error, %": row.top5_error, "layers": row.layers,
         "note": row.note, "source": row.source}
        for row in found.winners
    ]  # fmt: skip
    show.downloads("ilsvrc", table=table)
