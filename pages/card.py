"""Identity card: what the network is, how sure that is, and whether its weights are sound."""

from pages.ui import nav

nav.ensure()

import json

import streamlit as st

import sp_core as sp
from pages.card_views import facts, says, weights
from pages.ui import cache, show
from pages.ui.sidebar import selection

here = selection()
show.title("Identity card", "What this network is, where it comes from, and whether its weights are sound.")
net = here.net
key = (net.fingerprint, here.source, net.name, net.input_size)
card = cache.answer("card", key, lambda: sp.describe(net))

with st.container(horizontal=True):
    st.metric("Parameters", f"{card['parameters']:,}")
    st.metric("Multiply-accumulates", "unknown" if card["macs"] is None else f"{card['macs'] / 1e6:,.1f} M")
    st.metric("Size", f"{card['bytes'] / 1e6:,.1f} MB")
    st.metric("Layers", sum(layer.leaf for layer in net.layers) if net.has_graph else len(card["layers"]))
    st.metric("Classes", f"{card['classes']:,}" if card["classes"] else "none")

left, right = st.columns(2, gap="large")
with left:
    st.subheader(facts.unmarked(net.name))
    facts.table(facts.rows(card))
    for warning in card["warnings"]:
        st.caption(f":material/warning: {facts.unmarked(warning)}")
with right:
    st.subheader("Weights")
    weights.draw(card["health"])
    st.subheader("Training")
    facts.training(card["training"])

if net.has_graph:
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"On {facts.unmarked(here.image_name)}")
        says.draw(here)
    with right:
        st.subheader("Classes")
        says.classes(here)

st.subheader("Layers")
table = facts.layers(card)
st.dataframe(table, hide_index=True, column_config=facts.THOUSANDS)
st.caption("In execution order, containers included. Receptive field and stride are in pixels of the input.")
show.explain(
    "How the weights are examined",
    "No image is needed. A filter is **dead** when its norm is below 1 % of the layer's largest. A layer looks "
    "**untrained** when its weights cannot be told from independent draws of a normal or uniform distribution: mean "
    "and skewness are 0, the kurtosis is that of the distribution, all filters are of one length, and no singular "
    "value lies beyond the edge that random matrices have. Training breaks at least one of these in "
    "practically every layer, but a layer that hardly learnt can still pass for random. A **batch normalisation** "
    "whose means are exactly 0 and variances exactly 1 has never seen data.",
    "Marchenko and Pastur 1967; Johnstone 2001, Annals of Statistics 29 (edge of random matrices); "
    "He et al. 2015 (initialisation)",
)
show.provenance(here, input="×".join(map(str, net.input_size)))
show.downloads(
    f"card-{net.name}",
    table=table,
    text=(f"card-{net.name}.json", json.dumps(card, indent=1, ensure_ascii=False)),
    code=f"import sp_core as sp\n\nnet = sp.load({here.loads_as!r})\ncard = sp.describe(net)\n"
    'print(card["health"], card["layers"][0])',
)
