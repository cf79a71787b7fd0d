"""Maximally activating patches: what drives each channel most, least, and in between."""

from pages.ui import nav

nav.ensure()

import streamlit as st

import sp_core as sp
from pages.patch_views import data, indexing
from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from sp_core.figures import patches as figures
from sp_core.patches import table

here = selection()
net = here.net
show.title(
    "Maximally activating patches",
    "Each row is a channel; its tiles are the patches of real images that drive it most, cut to what the unit sees.",
)
SMALL = max(net.input_size[1:]) <= 96
ROWS, SIZE = (16, 64) if SMALL else (6, 96)  # channels a sheet, and the longest side of a tile in pixels
WHICH = {"best": "strongest", "worst": "weakest", "random": "randomly sampled"}
MOST = 9  # patches a channel

source, index = indexing.choose(here)
if index is None:
    st.stop()

if st.session_state.get("layer") not in index.layers:
    st.session_state.pop("layer", None)  # another network's layer
with st.container(horizontal=True, vertical_alignment="bottom"):
    start_at = index.layers.index(indexing.default_layer(net, index))
    layer = st.selectbox("Layer", index.layers, index=start_at, key="layer", bind="query-params", width=260)
    which = st.segmented_control(
        "Patches",
        list(WHICH),  # the words themselves: they stand in the address bar
        default="best",
        key="which",
        bind="query-params",
        required=True,
        help="Random: evenly spaced, strong to weak, through a random sample of the images.",
    )
    guided = st.toggle("Guided backprop of the same patches", key="guided", bind="query-params")
count = index.channels(layer)
page = indexing.choose_page(count, ROWS)
channels = list(range(page * ROWS, min((page + 1) * ROWS, count)))
rows = [index.patches(sp.Unit(layer, channel), which, min(MOST, index.top_count)) for channel in channels]
key = (net.identity, str(index.folder), index.done, layer, which, guided)
images = index.open_dataset(data.dataset(source))
sheet = cache.answer(
    "patches",
    (*key, page),
    lambda: figures.channels_sheet(
        net, images, rows, [str(c) for c in channels], size=SIZE, columns=MOST, guided=guided
    ),
)

wide, narrow = st.columns([5, 4], gap="large")
with wide:
    chosen = pick.sprite(
        sheet,
        key="channel",
        label="Channel",
        alt=f"The {WHICH[which]} patches of channels {channels[0]} to {channels[-1]} of {layer} of {net.name}",
        labels=figures.words(rows, [f"channel {c}" for c in channels], index.classes, MOST),
        order=[channel for channel in channels for _ in range(MOST + 1)],
        width=sheet.image.width,
    )
    st.caption(indexing.facts(index, layer, net))
with narrow:
    st.subheader(f"Channel {chosen} of {layer}")
    unit = sp.Unit(layer, chosen)
    patches = index.patches(unit, which, min(MOST, index.top_count))
    big = cache.answer(
        "patches-big", (*key, chosen), lambda: figures.portraits(net, images, patches, size=192, guided=guided)
    )
    places = [column for _ in range(3) for column in st.columns(3)]
    for place, picture, patch in zip(places, big, patches, strict=False):
        text = figures.say(patch, index.classes)
        with place:
            show.picture(picture, alt=f"Channel {chosen}: {text}", caption=text, width="100%")
    st.caption(f"Above 0 in {index.active_share(unit):.1%} of {index.images:,} images.")
    if index.classes and index.dataset["profile"]:
        st.markdown("**Mean of its maximum in the images of each class**")
        profile = figures.class_profile(index.class_profile(unit), index.classes)
        show.figure(profile, alt=f"Class profile of channel {chosen} of {layer}")

show.explain(
    "What you are looking at",
    "For every channel the images are ranked by the **largest value anywhere in its map**, so that no two tiles of a "
    "row come from one image; a tile is the **receptive field** of the position where that value stands. *Hatched* is "
    "outside the image, where the unit saw padding. Where the field is larger than the image, the whole image is shown "
    "with a narrow margin; what the unit does not see is greyed.\n\n"
    "The strongest nine alone make every channel look purer than it is. The tiles at random, from a sample of 24 "
    "images that is the same for all channels, show what it answers to on the way down; the weakest, what it ignores. "
    "*Percentile*: the share of images whose largest value is not above this one; exact at both ends, interpolated in "
    "a histogram between. **Guided backprop** shows which pixels raise the value; it mostly recovers edges and says "
    "little about class (Nie et al. 2018, Adebayo et al. 2018). Each tile has its own scale; grey is 0.",
    "Springenberg et al. 2015, Striving for Simplicity, figure 3; Zeiler and Fergus 2014",
)
show.provenance(
    here, layer=layer, images_seen=f"{index.images} of {index.dataset['name']} `{index.dataset['fingerprint']}`"
)
show.downloads(
    f"patches-{layer}-{channels[0]}",
    picture=sheet.image,
    table=[line for row in rows for line in table(row, index.classes)],
    code=f"import sp_core as sp\n\nnet = {here.code}\n"
    f'images = sp.datasets.open("{source}", count={index.total})\n'
    f'for record in sp.build_patch_index(net, images, "index"):\n    print(record.done, record.total)\n'
    f'index = sp.PatchIndex("index")\nfor patch in index.patches("{layer}:{chosen}", "{which}"):\n    print(patch)',
)
