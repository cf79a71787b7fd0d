"""What the batch normalisations have learnt: statistics, scales and shifts of every layer, and the channels of one."""

from __future__ import annotations

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.figures import normalisation as figures

NORMS = (
    "A batch normalisation maps a channel `x` to `γ · (x − μ) / √(σ² + ε) + β`. *μ* and *σ²* are what the channel was "
    "like in training, *γ* and *β* were learnt. Means and variances that grow from layer to layer show how a signal "
    "grows along a residual branch; a variance near 0 is a channel that never changed.\n\n"
    "The *gain* `γ / √(σ² + ε)` is what a channel is multiplied with in the end. Where γ is near 0 the channel says "
    "the same whatever it sees: training with weight decay on γ, or with an L1 penalty, switches channels off, and "
    "they can be cut away. In a network whose normalisations were folded into the convolutions every panel is flat."
)
SOURCES = "Ioffe and Szegedy 2015; Liu et al. 2017, Learning efficient convolutional networks through network slimming"


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """All layers in four panels, one layer's channels, and the table."""
    try:
        rows = cache.answer("norms", (here.net.identity,), lambda: sp.weights.norm_statistics(here.net))
    except sp.SpError as error:  # to have none is no mistake
        st.info(unmarked(str(error)), icon=":material/align_vertical_center:")
        return
    layer = choose("Layer", tuple(row.layer for row in rows), "norm-layer", width=280)
    index = [row.layer for row in rows].index(layer)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Every layer: smallest to largest channel, the middle half, and the median**")
        alt = f"Mean, variance, scale and shift of {len(rows)} batch normalisations; {layer} is marked"
        show.figure(figures.distributions(rows, index), alt=alt, height=560)
    with right:
        st.markdown(f"**The {rows[index].channels} channels of {unmarked(layer)}**")
        if rows[index].gain is None:
            st.info("It keeps no running statistics: in evaluation it normalises with those of the batch.")
        else:
            show.figure(figures.channels(rows[index]), alt=f"Gain and offset of the channels of {layer}", height=420)
            off = rows[index].off
            st.caption(
                "What each channel is multiplied with, and what is then added. "
                + (f"**{off} channels have a scale near 0**: they hardly depend on what they see." if off else "")
            )
    table = figures.table(rows)
    short = st.column_config.NumberColumn(format="%.3g")
    st.dataframe(table, hide_index=True, column_config={name: short for name in table[0] if name.startswith("median")})
    show.explain("What you are looking at", NORMS, SOURCES)
    show.provenance(here, layer=layer)
    numbers = {
        f"{row.layer}.{name}": values.numpy()
        for row in rows
        for name in sp.weights.statistics.QUANTITIES
        if (values := row.get(name)) is not None
    }
    code = (
        f"import sp_core as sp\n\nnet = {here.code}\nfor row in sp.weights.norm_statistics(net):\n    print(row.layer, "
    )
    code += "row.summary('scale'))"
    show.downloads("batch-norm", numbers=numbers, table=table, code=code)
