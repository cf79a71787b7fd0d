"""Receptive-field growth: which pixels a unit sees, layer by layer, and which of them it listens to."""

from pages.ui import nav

nav.ensure()

from typing import Any

import streamlit as st

from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from sp_core import effective_field as effective
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
with st.container(horizontal=True, vertical_alignment="bottom"):
    layer = st.select_slider("Layer", maps, value=maps[-1], key="layer", bind="query-params")
    gates: Any = st.segmented_control(
        "Gates and statistics of the whole map",
        list(GATES),
        format_func=GATES.get,
        default="local",
        key="gates",
        bind="query-params",
        required=True,
        help="Squeeze-and-excitation and group normalisation scale each channel by one number computed from the whole "
        "map. Counted strictly, every unit behind the first of them sees the whole image.",
    )

key = (net.identity,)
found = cache.answer("fields", (*key, gates), lambda: rf.receptive_fields(net, gates))
chosen, shape = found[layer], net.layer(layer).output_shape

left, right = st.columns([3, 2], gap="large")
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
    st.metric("It can see", figures.pixels(chosen), border=True)
    st.caption(figures.sentence(chosen, net.input_size))
steps = cache.answer("nest", (*key, gates, layer, y, x), lambda: rf.nest(net, layer, (y, x), gates))
with left:
    show.figure(
        figures.nested(here.crop, steps),
        alt=f"{len(steps)} nested receptive fields around unit {y},{x} of {layer} on {here.image_name}; the last is "
        f"{figures.pixels(chosen)}. Parts outside the image are hatched.",
    )

st.subheader("Growth with depth")
grown = {name: field for name, field in found.items() if name in maps}
outgrown = figures.outgrown(grown, net)
show.figure(
    figures.growth(grown, net.input_size[1:], layer),
    alt=f"Size of the receptive field of {len(grown)} layers of {net.name} against depth. {outgrown}",
)
st.caption(outgrown)
table = figures.table(net, found)
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
    count = st.select_slider("Images", [4, 8, 16, 32, 64], value=16, key="images", bind="query-params", width=240)
    wanted = st.toggle("Measure this unit's gradient", key="measure", bind="query-params")
    st.caption("The gradient of the unit, over textures, with these weights and with random ones.")


def measure() -> dict[str, effective.EffectiveField]:
    """The field of the chosen unit with these weights, and with new random ones."""
    images = effective.textures(net, count)
    nets = {"these weights": net, "random weights": effective.initialised(net, seed=0)}
    return {name: effective.effective_field(one, layer, images, position=(y, x)) for name, one in nets.items()}


if wanted:
    with st.spinner("Measuring …"):
        both = cache.answer("effective", (*key, layer, y, x, count), measure)
    zoom = max(1, 360 // max(net.input_size[1:]))
    *pictures, curve = st.columns([1, 1, 2])
    for column, (name, field) in zip(pictures, both.items(), strict=True):
        with column:
            st.markdown(f"**{name.capitalize()}**")
            words = (
                f"95 % of the energy in {field.pixels:,} pixels, {field.share:.0%} of the field; σ {field.sigma[0]:.1f}"
            )
            show.picture(figures.measured(field, zoom), alt=f"Gradient of the unit, {name}: {words}", width="100%")
            st.caption(words + f" × {field.sigma[1]:.1f} pixels. White: the theoretical field in the image.")
    with curve:
        show.figure(figures.profile(both), alt="Energy of the gradient along x beside Gaussians of the same σ")
    show.downloads(
        f"effective-field-{net.name}-{layer}",
        picture=figures.measured(both["these weights"], zoom),
        numbers={name: field.energy.numpy() for name, field in both.items()},
    )

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
show.provenance(here, layer=layer, unit=f"{y},{x}", gates=GATES[gates], images=count if wanted else None)
