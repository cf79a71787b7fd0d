"""Neighbours: which images of a data set are most like the chosen one, in pixels and in the features of layers."""

from pages.ui import nav

nav.ensure()

from typing import Any

import streamlit as st

import sp_core as sp
from pages.neighbour_views import held as features
from pages.neighbour_views import rows
from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from pages.ui.text import unmarked
from sp_core.figures import neighbours as figures
from sp_core.nearest import PIXELS, agreement

here = selection()
net = here.net
show.title("Neighbours", "Which images are alike: first by their pixels, then as each layer of the network sees them.")
source, images, held = features.choose(here)
if held is None:
    st.info("There are no features yet; press the button to look at the images.", icon=":material/hub:")
    st.stop()
images = sp.datasets.take(images, held.done)

with st.container(horizontal=True, vertical_alignment="bottom"):
    asked = st.segmented_control(
        "Neighbours of",
        ["the chosen picture", "an image of the data set"],
        default="the chosen picture",
        key="of",
        bind="query-params",
        required=True,
    )
    of_set = asked != "the chosen picture"
    image = pick.number("Image", key="row", top=held.done - 1) if of_set else None
    metric: Any = st.segmented_control(
        "By",
        ["cosine", "l2"],
        default="cosine",
        key="metric",
        bind="query-params",
        required=True,
        help="1 - cosine of the angle between two vectors, from 0 to 2; or their Euclidean distance.",
    )
    k = st.select_slider("How many", [3, 5, 9, 15, 25], value=9, key="k", bind="query-params", width=180)
layers = held.layers
shown = st.multiselect(
    "Layers", layers, default=[layers[i] for i in sorted({0, len(layers) // 2, len(layers) - 1})], max_selections=3
)

label = int(held.labels[held.row(image)]) if image is not None else None
beside = st.container(horizontal=True, gap="medium")
with beside.container(width=130):
    if image is None:
        show.picture(here.crop, alt=f"What the network sees of {here.image_name}", width="100%")
        st.caption(f"Neighbours of {unmarked(here.image_name)}")
    else:
        show.picture(rows.pictures(images, (image,))[0], alt=f"Image {image} of the data set", width="100%")
        st.caption(
            f"Neighbours of image {image}" + (f", {held.classes[label]}" if label is not None and label >= 0 else "")
        )
with beside.container(width="stretch"):
    key = (str(held.folder), held.done, metric, k, *(("image", image) if image is not None else here.key))
    every = [
        cache.answer(
            "neighbours",
            (*key, space),
            lambda space=space: sp.neighbours(
                held, here.seen if image is None else image, space, k=k, metric=metric, net=net
            ),
        )
        for space in (PIXELS, *(layer for layer in layers if layer in shown))
    ]
    for found in every:
        rows.draw(images, held, found, label)
below = "class" if bool((held.labels >= 0).any()) else "number"
st.caption(
    f"Nearest first, out of {len(held.images):,} images of {held.dataset['name']}; below each its {below} and distance"
    + (" (green and ✓: the same class)." if label is not None and label >= 0 else ".")
)

if (held.labels >= 0).sum() > 1:
    st.subheader("Do neighbours agree in their class?")
    curve = cache.answer(
        "agreement",
        (str(held.folder), held.done, metric, k),
        lambda: [agreement(held, space, k, metric, most=2000) for space in held.spaces],
    )
    words = figures.sentence(curve)
    show.figure(figures.curve(curve), alt=f"Agreement of neighbours over depth. {words}", height=400)
    st.caption(words)
else:
    st.caption("These images have no classes, so whether neighbours agree cannot be told.")

show.explain(
    "What you are looking at",
    "Each image is a vector: its pixels (averaged to at most 32×32), or what a layer puts out for it (the mean of each "
    "map, or the vector itself). Its neighbours are the images with the nearest vectors, found by exact search. In "
    "pixels the neighbours share **colour and layout**: the same background, not the same thing. The deeper the layer, "
    "the more they share what the network was trained to tell apart.\n\n"
    "The curve asks how well this goes: every image is left out in turn and put into the class that most of its "
    "neighbours have. That needs no training, so it shows what each layer has already made easy. On images unlike "
    "those of its training, deeper is not always better.",
    "Krizhevsky et al. 2012, figure 4; Torralba, Fergus & Freeman 2008 (tiny images); Cover & Hart 1967; "
    "Stanford CS231n, lecture “Visualizing and understanding”",
)
show.provenance(
    here,
    neighbours_of=None if image is None else f"image {image}",
    data=f"{held.dataset['name']} `{held.dataset['fingerprint']}`",
    metric=metric,
    k=k,
)
query = f"{image}" if image is not None else 'net.view(sp.open_image("picture.png"))[None]'
show.downloads(
    "neighbours",
    picture=lambda: figures.grid([rows.pictures(images, found.images) for found in every]),
    table=figures.table(every, held.classes),
    code=f"import sp_core as sp\n\nnet = {here.code}\n"
    f'images = sp.datasets.open("{source}", count={held.done})\n'
    f'for record in sp.build_features(net, images, "features", {list(layers)}):\n    print(record.done, record.total)\n'
    f'print(sp.neighbours("features", {query}, "{layers[-1]}", k={k}, metric="{metric}", net=net))',
)
