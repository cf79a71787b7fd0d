"""The spectra of all layers, one of them beside random ones, and the ranks that follow."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, live, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.figures import epochs as over_epochs
from sp_core.figures import weights as figures

LARGEST = 16  # pixels a side of the maps on which the operator is looked at: larger ones take minutes
ABOUT = {
    "flat": "Each convolution as one matrix [out, in·k·k], which patches are multiplied with and low-rank schemes cut.",
    "positions": "Each convolution as k·k matrices [out, in], one a kernel position, their values together: what "
    "WeightWatcher reads.",
    "operator": "Each convolution as the linear map of whole maps to whole maps that it is, with **circular** padding "
    "in place of zeros, so that it falls apart by frequency (Sedghi, Gupta and Long, ICLR 2019). σ₁ is how much the "
    f"layer can lengthen a signal or a gradient. On maps of at most {LARGEST} pixels a side: larger ones sample the "
    "same curve more finely.",
}


def draw(here: Selection, found: epochs.Followed | None) -> None:
    """All spectra, one of them beside random ones, the matrix itself, the ranks, and how they moved over a run."""
    offered = sp.weights.MATRICES if here.net.has_graph else ("flat", "positions")  # no graph, no sizes of maps
    with st.container(horizontal=True, vertical_alignment="bottom"):
        matrix = choose("Which matrix", offered, "reading", width=200)
        names = tuple(row.layer for row in sp.weights.matrices(here.net))
        wanted = choose("Layer", names, "layer", width=280)
    st.caption(ABOUT[matrix])
    rows = all_spectra(here, matrix)
    if not rows:
        return
    done = [row.layer for row in rows]
    if wanted not in done:
        st.info(f"{unmarked(wanted)} does not run in evaluation, so it has no maps; the first layer is shown.")
    layer = wanted if wanted in done else done[0]
    index = done.index(layer)
    key = (rows[index].matrix, rows[index].block, rows[index].shape, len(rows[index].values))
    band = cache.answer("band", key, lambda: sp.weights.band_of(rows[index]))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**Singular values of {layer}, of all layers, and of random matrices**")
        show.figure(figures.spectra(rows, index, band), alt=f"Singular values of {layer} over σ₁", height=430)
    with right:
        st.markdown("**All layers, from σ₁ on the left to the smallest on the right**")
        show.figure(figures.strip(rows), alt="Singular values of all layers as a strip", height=430)
    if found is not None:
        _over_the_run(here, found, layer)
    _matrix(here, layer)
    table = figures.rank_table(rows)
    st.dataframe(table, hide_index=True)
    show.explain(
        "What you are looking at",
        "A convolution is not one matrix; which one is meant changes the numbers, so it is chosen above. A random "
        "weight already has a falling spectrum (grey band: same shape and norm); training lifts a few directions above "
        "it and lets others fall. *Effective rank* is the exponential of the spectrum's entropy, *stable rank* "
        "‖W‖²/σ₁², and the last columns say how many directions hold 90 % and 99 % of the energy. Of a recurrent layer "
        "every gate is a matrix of its own: rows are divided in the order that PyTorch documents.",
        "Roy and Vetterli 2007 (effective rank); Marchenko and Pastur 1967; Dumitriu and Edelman 2002 (drawn spectra); "
        "Sedghi, Gupta and Long 2019 (operator); Martin and Mahoney 2021 (positions)",
    )
    show.provenance(here, layer=layer, matrix=matrix, random_seed=0)
    how = {"flat": "", "positions": ", matrix='positions'"}.get(matrix, f", matrix='operator', largest={LARGEST}")
    code = f"import sp_core as sp\n\nnet = {here.code}\n"
    code += f"print(sp.singular_values(net{how})[{rows[index].name!r}])"
    show.downloads("spectra", numbers={row.name: row.values.numpy() for row in rows}, table=table, code=code)


def _over_the_run(here: Selection, found: epochs.Followed, layer: str) -> None:
    """How the chosen layer's ranks moved over the training run."""
    st.subheader(f"{unmarked(layer)} over the run, as the flat matrix")
    rows = epochs.moments(here, found, layer)
    alt = f"Largest singular value, effective and stable rank of {layer} over {len(rows)} checkpoints"
    show.figure(over_epochs.ranks_over_epochs(rows, layer, found.here.label, found.unit), alt=alt, height=300)
    epochs.left_out(rows, layer)
    show.downloads("over-the-run", table=over_epochs.table(rows, layer))


def _matrix(here: Selection, layer: str) -> None:
    """The chosen matrix as a picture; of a recurrent layer all its gates side by side, on one scale."""
    chosen = sp.weights.find(here.net, layer)
    tensor = layer.partition("[")[0]
    stacked = [row for row in sp.weights.matrices(here.net) if row.layer.partition("[")[0] == tensor]
    shown = stacked if chosen.part is not None else [chosen]
    limit = max(float(row.tensor.abs().nan_to_num(0, 0, 0).max()) for row in shown)
    if chosen.part is None:
        st.subheader("The weight, as its flat matrix")
        picture = figures.matrix(chosen.matrix, limit)
        size = f"{layer}, {chosen.matrix.shape[0]}×{chosen.matrix.shape[1]}"
        show.picture(picture, f"The matrix of {size}", width=figures.shown_width(picture, 900), caption=size)
    else:
        st.subheader(f"The gates of {unmarked(tensor)}" if len(shown) > 1 else "The matrix itself")
        for column, row in zip(st.columns(max(3, len(shown)), gap="medium"), shown, strict=False):
            with column:
                picture = figures.matrix(row.matrix, limit)
                gate = row.layer.removeprefix(tensor).strip("[]")
                words = f"{gate}{': ' if gate else ''}{row.part}, {row.matrix.shape[0]}×{row.matrix.shape[1]}"
                words += " (chosen)" if row.layer == layer and len(shown) > 1 else ""
                wide = figures.shown_width(picture, 340, tallest=420)
                show.picture(picture, f"The matrix of {row.layer}", width=wide, caption=words)
    st.caption(
        f"One row an output, one column an input{' and kernel position' if chosen.tensor.ndim > 2 else ''}; blue is "
        f"negative, red positive, white zero; darkest is ±{limit:.3g}. Larger matrices are shown as means of blocks."
    )


def all_spectra(here: Selection, matrix: str) -> tuple[sp.weights.Spectrum, ...]:
    """The spectra of all layers: at once where that takes a second, else while one watches."""
    if matrix != "operator" and sp.weights.cost(here.net) < 2e10:
        return cache.answer("spectra", (here.net.identity, matrix), lambda: sp.weights.read_spectra(here.net, matrix))
    rows, _ = live.run(
        lambda: sp.weights.spectra_so_far(here.net, matrix, LARGEST),
        key="spectra",
        settings=(here.net.identity, matrix),
        total=len(sp.weights.matrices(here.net)),
        draw=lambda rows: None,
        text=lambda rows: f"{len(rows)} matrices done, the last {rows[-1].rows}×{rows[-1].columns}",
        alt="",
        start=True,
    )
    return rows or ()
