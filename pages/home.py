"""Start: what is loaded, what it sees in the chosen picture, and where to begin."""

from pages.ui import nav

nav.ensure()

import streamlit as st

import sp_core as sp
from pages.ui import cache, preview, says, show
from pages.ui.sidebar import selection
from sp_core.counts import short

here = selection()
show.title("Structural Priors", "Look inside a convolutional network: its filters, its favourite patches, its weights.")
net = here.net
layers = net.layers  # where only the weights are known, this page ends here, with links to the pages that need no more

left, right = st.columns([2, 3], gap="large")
with left:
    st.subheader("What the network sees")
    show.picture(here.crop, alt=f"The crop of {here.image_name} that {net.name} is fed with", width=320)
    preview.explain(here)
with right:
    st.subheader("What it says")
    says.bars(here, height=300)
    counts = cache.answer("complexity", (net.identity,), lambda: sp.complexity(net))
    first, second, third = st.columns(3)
    first.metric("Parameters", short(counts.parameters), help=f"{counts.parameters:,} weights and biases")
    second.metric("MACs", short(counts.macs), help=f"{counts.macs:,} multiply-accumulates an image")
    third.metric("Layers", sum(layer.leaf for layer in layers))

st.subheader("What to ask it")
TEXTS = {
    "card.py": "What is this file, and is it sound? Architecture, sizes, what training left in it, dead filters.",
    "filters.py": "What does the first layer look for? Every filter as a picture, with its orientation, frequency "
    "and colour, and its response to your image.",
    "feature_maps.py": "What does each channel of a layer put out for your image, and where?",
    "patches.py": "Which patches of real images drive a unit most, which least, and which lie between?",
    "neighbours.py": "Which images are nearest to yours, in pixels and in the features of each layer?",
    "backprop.py": "Which pixels does the decision rest on? Gradient, deconvnet, guided backprop and others.",
    "synthesis.py": "Which image would drive a unit further than any photograph? Watch it grow; let the network dream.",
    "architectures.py": "What do published networks cost, how well do they do, and how are they built?",
    "receptive_fields.py": "How far can each unit see, in theory and as measured?",
    "weights.py": "How much of each weight matrix is low-rank, symmetric, or the identity?",
}
rows = list(TEXTS.items())
for start in range(0, len(rows), 3):  # row by row, so that boxes beside each other are of one height
    for column, (file, text) in zip(st.columns(3, gap="medium"), rows[start : start + 3], strict=False):
        with column.container(border=True, height="stretch"):
            nav.page_link(file)
            st.caption(text)
