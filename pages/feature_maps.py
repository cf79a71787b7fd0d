"""Feature maps: what every channel of a layer puts out on the chosen picture, and where."""

from pages.ui import nav

nav.ensure()

from typing import Any

import streamlit as st

import sp_core as sp
from pages.feature_map_views import one
from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from sp_core.feature_maps import feature_maps_of, shown_layers
from sp_core.figures import feature_maps as figures

here = selection()
net = here.net
show.title("Feature maps", "What every channel of a layer says about the chosen picture, and where it says it.")

names = [layer.name for layer in shown_layers(net)]
if not names:
    raise sp.SpError(f"{net.name} has no layer whose output is a stack of maps or a vector; choose another network.")
with st.container(horizontal=True, vertical_alignment="bottom"):
    layer = pick.choose("Layer", names, "layer", index=one.first(net, names), width=280, help=pick.left_out(net))
    sort: Any = st.segmented_control(
        "Sort by",
        ["index", "mean", "maximum"],
        default="index",
        key="order",
        bind="query-params",
        required=True,
        help="By number, or the channel with the largest mean or maximum on this picture first.",
    )
    scaling: Any = st.segmented_control(
        "Scaled by",
        ["map", "layer"],
        default="map",
        key="scale",
        bind="query-params",
        required=True,
        help="Each map to its own largest magnitude (its 99.5 % quantile), or all on one scale of the layer.",
    )
found = cache.answer("feature-maps", (*here.key, layer), lambda: feature_maps_of(net, layer, here.seen))
order, count = found.order(sort), len(found.values)
say = one.namer(net, found)

if found.is_map:
    wide, narrow = st.columns([3, 2], gap="large")
    with wide:
        sprite, width = cache.answer(
            "feature-sheet", (*here.key, layer, sort, scaling), lambda: figures.sheet(found, scaling, order)
        )
        chosen = pick.sprite(
            sprite,
            key="channel",
            label="Channel",
            alt=f"The {count} feature maps of {layer} of {net.name} on {here.image_name}",
            labels=[say(i) for i in order.tolist()],
            order=order.tolist(),
            width=width,
        )
        one.facts(found)
    with narrow:
        one.draw(here, found, chosen, scaling)
else:
    chosen = pick.number("Element", key="channel", top=count - 1)
    show.figure(
        figures.bars(found.values, order, [say(i) for i in range(count)], chosen),
        alt=f"The {count} values of {layer} of {net.name} on {here.image_name}",
        height=380,
    )
    st.markdown(f"**{say(chosen)}**")
    one.facts(found)

show.explain(
    "What you are looking at",
    "Every tile is the output of one channel: the layer's filter, moved over the picture. Bright (or red) places are "
    "where the network found what the channel stands for; **blue is below zero**, which only layers before a rectifier "
    "have. Early maps follow edges and colours and can be recognised as the picture; deeper ones are coarse, mostly "
    "empty, and answer to parts of objects. In a layer behind a rectifier many maps are zero everywhere: that is no "
    "fault, but a channel that is silent on *every* picture is dead (the page on maximal patches counts those).\n\n"
    "The large picture lays the map over what the network sees. Each value stands at the centre of its unit's "
    "**receptive field**, and linear interpolation runs between; simply resizing a map to the picture moves it by up "
    "to half a stride. The frame is all that the unit with the largest value can see.",
    "Zeiler & Fergus 2014, Visualizing and understanding convolutional networks; Yosinski, Clune, Nguyen, Fuchs & "
    "Lipson 2015, Understanding neural networks through deep visualization",
)
show.provenance(here, layer=layer, channel=chosen, scaling=scaling if found.is_map else None)
show.downloads(
    f"feature-maps-{layer}",
    picture=(lambda: figures.sheet(found, scaling, order)[0].image) if found.is_map else None,
    numbers={"values": found.values.numpy()},
    code=f'import sp_core as sp\n\nnet = {here.code}\nimage = net.view(sp.open_image("picture.png"))[None]\n'
    f'values = sp.activations(net, image, ["{layer}"])["{layer}"][0]\nprint(values.shape)',
)
