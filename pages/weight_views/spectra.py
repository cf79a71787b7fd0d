"""The spectra of all layers, one of them beside random ones, and the ranks that follow."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, live, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from sp_core.figures import weights as figures


def draw(here: Selection) -> None:
    """All spectra, one of them beside random ones, and the ranks."""
    rows = all_spectra(here)
    if not rows:
        return
    layer = choose("Layer", tuple(row.layer for row in rows), "layer", width=280)
    index = [row.layer for row in rows].index(layer)
    band = cache.answer("band", (rows[index].rows, rows[index].columns), lambda: _band(rows[index]))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**Singular values of {layer}, of all layers, and of random matrices**")
        show.figure(figures.spectra(rows, index, band), alt=f"Singular values of {layer} over σ₁", height=430)
    with right:
        st.markdown("**All layers, from σ₁ on the left to the smallest on the right**")
        show.figure(figures.strip(rows), alt="Singular values of all layers as a strip", height=430)
    table = figures.rank_table(rows)
    st.dataframe(table, hide_index=True)
    show.explain(
        "What you are looking at",
        "A convolution is read as the flat matrix `[out, in·k·k]` that patches are multiplied with. A random matrix "
        "already has a falling spectrum (grey band: same shape and norm); training lifts a few directions above it and "
        "lets others fall. *Effective rank* is the exponential of the spectrum's entropy, *stable rank* "
        "‖W‖²/σ₁², and the last columns say how many directions hold 90 % and 99 % of the energy.",
        "Roy and Vetterli 2007 (effective rank); Marchenko and Pastur 1967; Dumitriu and Edelman 2002 (drawn spectra)",
    )
    show.provenance(here, layer=layer, random_seed=0)
    code = f"import sp_core as sp\n\nnet = sp.load({here.loads_as!r})\n"
    code += f"print(sp.singular_values(net)[{rows[index].name!r}])"
    show.downloads("spectra", numbers={row.name: row.values.numpy() for row in rows}, table=table, code=code)


def all_spectra(here: Selection) -> tuple[sp.weights.Spectrum, ...]:
    """The spectra of all layers: at once where that takes a second, else while one watches."""
    if sp.weights.cost(here.net) < 2e10:
        return cache.answer("spectra", (here.net.fingerprint,), lambda: sp.weights.read_spectra(here.net))
    rows, _ = live.run(
        lambda: sp.weights.spectra_so_far(here.net),
        key="spectra",
        settings=here.net.fingerprint,
        total=len(sp.weights.weights(here.net)),
        draw=lambda rows: None,
        text=lambda rows: f"{len(rows)} matrices done, the last {rows[-1].rows}×{rows[-1].columns}",
        alt="",
        start=True,
    )
    return rows or ()


def _band(row: sp.weights.Spectrum) -> sp.weights.Band:
    return sp.weights.random_band(row.rows, row.columns)
