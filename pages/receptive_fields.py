"""Receptive-field growth: which pixels a unit sees, layer by layer, and which of them it listens to."""

from pages.ui import nav

nav.ensure()

from typing import Any

import streamlit as st

from pages.receptive_field_views import measured
from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from sp_core import receptive_field as rf
from sp_core.counts import complexity, in_words
from sp_core.figures import fields as figures

here = selection()
net = here.net
show.title("Receptive fields", "Which pixels of the image a unit can see, how that grows with depth, and what it uses.")

maps = [layer.name for layer in net.layers if layer.is_map and layer.leaf and max(layer.output_shape[1:]) > 1]
if not maps:
    st.info(f"{net.name} has no layer with positions, so every unit sees the whole image.", icon=":material/info:")
    st.stop()
if st.session_state.get("layer") not in maps:
    st.session_state.pop("layer", None)  # a layer of the network chosen before
GATES = {"local": "held constant", "strict": "counted"}
key = (net.identity,)
both: dict[str, Any] = {
    gates: cache.answer("fields", (*key, gates), lambda gates=gates: rf.receptive_fields(net, gates)) for gates in GATES
}
gated = figures.differ(both["local"], both["strict"])
with st.container(horizontal=True, vertical_alignment="bottom"):
    layer = st.select_slider("Layer", maps, value=maps[-1], key="layer", bind="query-params", help=pick.left_out(net))
    gates: Any = "local"
    if gated:
        gates = st.segmented_control(
            "Draw with gates and statistics of the whole map",
            list(GATES),
            format_func=GATES.get,
            default="local",
            key="gates",
            bind="query-params",
            required=True,
            help="Squeeze-and-excitation and group normalisation scale each channel by one number computed from the "
            "whole map. Counted strictly, every unit behind the first of them sees the whole image.",
        )

found = both[gates]
chosen, shape = found[layer], net.layer(layer).output_shape

left, right = st.columns([3, 2], gap="medium")
with right:
    st.markdown(f"**Unit of `{layer}`** ({shape[1]} × {shape[2]} positions)")
    y, x = pick.position(
        here.crop,
        shape[1],
        shape[2],
        keys=("row", "column"),
        label="Unit at",
        alt=f"The positions of {layer}",
        width=320,
    )
    if gated:
        # One under the other: beside each other their numbers are cut off on a narrow screen.
        for one, words in GATES.items():
            st.metric(f"Gates {words}", figures.pixels(both[one][layer]))
    else:
        st.metric("It can see", figures.pixels(chosen))
    st.caption(figures.sentence(chosen, net.input_size))
steps = cache.answer("nest", (*key, gates, layer, y, x), lambda: rf.nest(net, layer, (y, x), gates))
with left:
    show.figure(
        figures.nested(here.crop, steps),
        alt=f"{len(steps)} nested receptive fields around unit {y},{x} of {layer} on {here.image_name}; the last: "
        f"{figures.pixels(chosen)}. Parts outside the image are hatched.",
    )

st.subheader("Growth with depth")
grown = {name: field for name, field in found.items() if name in maps}
outgrown = figures.outgrown(grown, net)
show.figure(
    figures.growth(
        {name: both["local"][name] for name in grown}, net.input_size[1:], layer, both["strict"] if gated else None
    ),
    alt=f"Size of the receptive field of {len(grown)} layers of {net.name} against depth. {outgrown}",
)
st.caption(outgrown)
table = figures.table(net, both["local"], both["strict"] if gated else None)
with st.expander(f"All {len(table)} layers", icon=":material/table:"):
    st.dataframe(table, hide_index=True)
    counts = cache.answer("complexity", key, lambda: complexity(net))
    st.caption(f"{in_words(counts.parameters)} parameters, {in_words(counts.macs)} multiply-accumulates an image.")
show.downloads(
    f"receptive-fields-{net.name}",
    picture=lambda: figures.still(here.crop, steps),
    table=table,
    code=f"import sp_core as sp\n\nnet = {here.code}\nfor name, field in "
    f"sp.receptive_fields(net, gates={gates!r}).items():\n    print(name, field.size, field.stride, field.start)",
)

st.subheader("What it uses of that")
with st.container(horizontal=True, vertical_alignment="bottom"):
    count = st.select_slider("Images", [4, 8, 16, 32, 64], value=32, key="images", bind="query-params", width=240)
    wanted = st.toggle("Measure this unit's gradient", key="measure", bind="query-params")
    st.caption("The gradient of the unit, over textures, with these weights and with random ones.")

if wanted:
    measured.draw(net, layer, (y, x), count)

show.explain(
    "What you are looking at",
    "Each rectangle is what one unit of one layer can see: change a pixel outside it and the unit does not move. "
    "A k × k filter sees k pixels of the layer below; going down a layer of stride s, a field of r becomes "
    "s·r + (k − s). Strides multiply, so fields grow fastest behind them. Where branches meet the largest path counts. "
    "Unit u of an axis sees pixels *start* + u·*stride* to *start* + u·*stride* + *size* − 1; what lies outside the "
    "image is hatched: there the network is told zeros, and a unit can learn from them where the border is.\n\n"
    "What a unit *can* see is not what it *uses*. Its gradient is close to a Gaussian, because a pixel in the middle "
    "reaches the unit by many more paths than one at the edge. Luo and others found that at initialisation it covers a "
    "small part of the theoretical field, and that training widens it; measure whether this network agrees.",
    "Araujo, Norris & Sim 2019, Computing receptive fields of convolutional neural networks, Distill; "
    "Luo, Li, Urtasun & Zemel 2016, Understanding the effective receptive field, NeurIPS",
)
show.provenance(
    here, layer=layer, unit=f"{y},{x}", gates=GATES[gates] if gated else None, images=count if wanted else None
)
