"""First-layer filters: all of them as one picture, and any of them taken apart."""

from pages.ui import nav

nav.ensure()

import streamlit as st

import sp_core as sp
from pages.filter_views import one, run
from pages.ui import cache, epochs, pick, show
from pages.ui.sidebar import selection
from pages.ui.text import unmarked
from sp_core.figures import filters as figures

here = selection()
show.title(
    "First-layer filters",
    "What the first convolution looks for: every filter as a picture, with its orientation, frequency and colour.",
)
found = epochs.slider(here)
try:
    names, stem = sp.filters.convolutions(here.net), sp.filters.find_stem(here.net)
except sp.SpError as error:
    if sp.filters.has_convolution(here.net):
        raise
    st.info(unmarked(str(error)), icon=":material/grid_off:")  # a perceptron is no mistake
    nav.page_link("weights.py")
    st.stop()
if st.session_state.get("layer") not in names:
    st.session_state.pop("layer", None)  # another network's layer

with st.container(horizontal=True):
    layer = st.selectbox("Layer", names, index=names.index(stem.layer), key="layer", bind="query-params", width=280)
    bank = sp.filters.bank(here.net, layer)
    sort = st.selectbox("Sort by", sp.filters.SORTS, key="sort", bind="query-params", width=200)
    scaling = "layer"  # of lines, whose heights are then comparable
    if bank.view != "lines":
        scaling = st.segmented_control(
            "Scaled by",
            sp.filters.SCALINGS,
            default="filter",
            key="scaling",
            bind="query-params",
            required=True,
            help="Each filter from its own smallest to its own largest weight, or all on the layer's scale, zero grey.",
        )
if stem.reason:
    st.caption(f":material/help: {unmarked(stem.reason)}")
facts = cache.answer("filter-facts", (here.net.identity, layer), lambda: sp.filters.facts(bank))
order = facts.order(sort)
rows = facts.rows()


def line(index: int) -> str:
    """What is read out for a filter under the cursor."""
    row = rows[index]
    state = ", dead" if row["dead"] else ", weak" if row["weak"] else ""
    turned = "no orientation" if row["orientation"] is None else f"{row['orientation']:.0f}°"
    wave = "" if row["frequency"] is None else f", {row['frequency']:.3f} cycles a pixel"
    return f"filter {index}: {turned}{wave}{state}"


def choose_filter() -> int:
    """Show all filters as the layer allows; return the number of the chosen one."""
    alt = f"The {bank.count} filters of {layer} of {here.net.name}"
    if bank.view == "lines":
        place = st.container()
        number = pick.number("Filter", key="channel", top=bank.count - 1)
        with place:
            high = figures.lines_height(bank)
            show.figure(figures.lines(bank, facts, order, number), alt=alt, height=high)
        st.caption("Thin: the weights for each input channel. Thick: the main pattern, which sums them up.")
        return number
    if bank.view != "tiles":
        sheet = figures.sheet(bank, scaling, order)
        words = [line(i) for i in order.tolist()]
        return pick.sprite(sheet, key="channel", label="Filter", alt=alt, labels=words, order=order.tolist())
    with st.container(horizontal=True):
        top = pick.number("First filter", key="rows", top=bank.count - figures.MOST_ROWS)
        left = pick.number("First input channel", key="columns", top=figures.columns(bank) - figures.MOST_COLUMNS)
    sheet = figures.kernel_sheet(bank, top, left, common=scaling == "layer")
    what = "input" if bank.depth == 1 else "column"
    words = [f"{line(top + i // sheet.columns)}, {what} {left + i % sheet.columns}" for i in range(sheet.count)]
    wide = sheet.image.width * max(1, min(720 // sheet.image.width, 900 // sheet.image.height))
    return top + pick.sprite(sheet, key="tile", label="Tile", alt=alt, labels=words, width=wide) // sheet.columns


wide, narrow = st.columns([2, 1], gap="large")
with wide:
    chosen = choose_filter()
    if bank.view == "tiles":
        words = (
            "Each slice weighs the colours of one frame."
            if bank.coloured_slices
            else "Blue is negative, red positive, white zero. These kernels weigh feature maps, not colours: they have "
            "**no RGB meaning**."
        )
        st.caption(f"One row a filter, one column {figures.column(bank)}. {words}")
    dead, weak = int(facts.dead.sum()), int(facts.weak.sum())
    if dead or weak:
        st.warning(
            f"{dead} of {bank.count} filters are dead (norm below 1 % of the layer's largest), {weak} are weak "
            "(below 10 %). Scaled to their own range, they look like noise or stripes that mean nothing."
        )
with narrow:
    one.where(bank, facts, chosen)

run.draw(here, found, bank, chosen, scaling)
one.draw(here, bank, facts, chosen, scaling)
show.explain(
    "What you are looking at",
    "Each tile is one filter: the weights by which the layer multiplies every patch of its input. A filter answers "
    "most to a patch that looks like itself. Trained first layers of any network hold **oriented waves** (Gabor "
    "functions) and **colour blobs**; a filter that is still noise has learnt nothing.\n\n"
    "*Orientation* and *frequency* are those of the highest peak of the Fourier magnitude; the *Gabor* function is "
    "fitted to the main pattern, that is the filter seen along the one direction of colour that keeps most of it. "
    "*Colourfulness* is the energy in the red–green and blue–yellow channels, as a share of all. *Rank-1 energy* is "
    "what is kept when each kernel is replaced by a column times a row; above 0.95 it is called separable here.\n\n"
    "In deeper layers a kernel weighs feature maps: it has no colours, and its picture says little by itself.",
    "Krizhevsky et al. 2012; Daugman 1985 (Gabor functions); Maidment, Convolutional Neural Networks, "
    "“Weights in deeper layers”; Rigamonti et al. 2013 (separable filters)",
)
show.provenance(here, layer=layer, scaling=scaling, filter=chosen)
show.downloads(
    f"filters-{layer}",
    picture=None if bank.view in {"tiles", "lines"} else lambda: figures.sheet(bank, scaling, order).image,
    numbers={"weight": bank.weight.numpy(), "pattern": facts.pattern.numpy(), "gabor": facts.gabor_fit.numpy()},
    table=rows,
    code=f'import sp_core as sp\n\nnet = {here.code}\nbank = sp.filters.bank(net, "{layer}")\n'
    f'facts = sp.filters.facts(bank)\nprint(facts.rows()[{chosen}])\nsp.figures.filters.sheet(bank, "{scaling}")',
)
