"""Identity card: what the network is, how sure that is, how it is fed, and whether its weights are sound."""

from pages.ui import nav

nav.ensure()

import json

import streamlit as st

import sp_core as sp
from pages.card_views import architecture, compared, facts, fed, filters, says, statistics, weights
from pages.ui import cache, networks, show
from pages.ui.sidebar import selection
from pages.ui.text import sentence, unmarked
from sp_core.errors import SpError

here = selection()
show.title("Identity card", "What this network is, where it comes from, and whether its weights are sound.")
try:
    net = here.net
    key = (net.identity, here.source, net.name, tuple(net.guesses))
    card = cache.answer("card", key, lambda: sp.describe(net))
except SpError as error:  # an upload that is none, or something said by hand that does not fit, which is mended here
    st.error(sentence(str(error)), icon=":material/error:")
    architecture.mend(here)
    fed.mend(here)
    st.stop()

facts.metrics(card)
left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader(unmarked(net.name))
    facts.table(facts.rows(card, networks.facts_by_hand(here.source)))
    for warning in card["warnings"]:
        st.caption(f":material/warning: {unmarked(warning)}")
    architecture.draw(here)
    if net.has_graph:
        st.subheader(f"On {unmarked(here.image_name)}")
        says.draw(here)
        fed.draw(here)
    else:
        filters.draw(here)
with right:
    st.subheader("Weights")
    weights.draw(card["health"])
    st.subheader("Training")
    facts.training(card["training"])
    if net.has_graph:
        st.subheader("Classes")
        says.classes(here)
statistics.draw(here)
compared.draw(here)

st.subheader("Layers")
table = facts.layers(card)
st.dataframe(table, hide_index=True, column_config=facts.THOUSANDS)
st.caption(
    "In execution order, containers included. Receptive field and stride are in pixels of the input."
    if net.has_graph
    else "In the order of the file; what a layer is, is read off the names and shapes of its tensors."
)
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
show.provenance(here, input="×".join(map(str, net.input_size)) if net.has_graph else None)
show.downloads(
    f"card-{net.name}",
    table=table,
    text=(f"card-{net.name}.json", json.dumps(card, indent=1, ensure_ascii=False)),
    code=f"import sp_core as sp\n\nnet = {here.code}\ncard = sp.describe(net)\n"
    'print(card["health"], card["layers"][0])',
)
