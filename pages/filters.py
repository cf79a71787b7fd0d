"""First-layer filters: all of them as one picture, and any of them taken apart."""

from pages.ui import nav

nav.ensure()

import streamlit as st
from PIL import Image

import sp_core as sp
from pages.ui import cache, pick, show
from pages.ui.sidebar import selection
from sp_core.figures import filters as figures

here = selection()
show.title(
    "First-layer filters",
    "What the first convolution looks for: every filter as a picture, with its orientation, frequency and colour.",
)
names = sp.filters.convolutions(here.net)
if st.session_state.get("layer") not in names:
    st.session_state.pop("layer", None)  # another network's layer

with st.container(horizontal=True):
    first = names.index(sp.filters.first_layer(here.net))
    layer = st.selectbox("Layer", names, index=first, key="layer", bind="query-params", width=280)
    bank = sp.filters.bank(here.net, layer)
    sort = st.selectbox("Sort by", sp.filters.SORTS, key="sort", bind="query-params", width=200)
    scaling = st.segmented_control(
        "Scaled by",
        sp.filters.SCALINGS,
        default="filter",
        key="scaling",
        bind="query-params",
        required=True,
        help="Each filter from its own smallest to its own largest weight, or all on the layer's scale with zero grey.",
    )
facts = cache.answer("filter-facts", (here.net.fingerprint, layer), lambda: sp.filters.facts(bank))
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
        show.figure(figures.lines(bank), alt=alt, height=520)
        return pick.number("Filter", key="channel", top=bank.count - 1)
    if bank.view != "tiles":
        sheet = figures.sheet(bank, scaling, order)
        words = [line(i) for i in order.tolist()]
        return pick.sprite(sheet, key="channel", label="Filter", alt=alt, labels=words, order=order.tolist())
    with st.container(horizontal=True):
        most = figures.MOST_TILES
        top = pick.number("First filter", key="rows", top=bank.count - most)
        left = pick.number("First input channel", key="columns", top=bank.weight.shape[1] - most)
    sheet = figures.kernel_sheet(bank, top, left, common=scaling == "layer")
    words = [f"{line(top + i // sheet.columns)}, input {left + i % sheet.columns}" for i in range(sheet.count)]
    return top + pick.sprite(sheet, key="tile", label="Tile", alt=alt, labels=words) // sheet.columns


wide, narrow = st.columns([2, 1], gap="large")
with wide:
    chosen = choose_filter()
    if bank.view == "tiles":
        st.caption(
            "One row a filter, one column an input channel; blue is negative, red positive, white zero. "
            "These kernels weigh feature maps, not colours: they have **no RGB meaning**."
        )
    dead, weak = int(facts.dead.sum()), int(facts.weak.sum())
    if dead or weak:
        st.warning(
            f"{dead} of {bank.count} filters are dead (norm below 1 % of the layer's largest), {weak} are weak "
            "(below 10 %). Scaled to their own range, they look like noise or stripes that mean nothing."
        )
with narrow:
    st.markdown("**Orientation and frequency of all filters**")
    show.figure(
        figures.orientation_and_frequency(facts, chosen),
        alt=f"Orientation and spatial frequency of the filters of {layer}; filter {chosen} is marked",
        height=340,
    )
    st.caption("A larger dot is a longer filter. Blobs, which have no orientation, and dead filters are left out.")

row = rows[chosen]
st.subheader(f"Filter {chosen}" + (" (dead)" if row["dead"] else " (weak)" if row["weak"] else ""))


def say(name: str, form: str, unit: str = "") -> str:
    """A number of the chosen filter, or a dash where there is none."""
    return "–" if row[name] is None else f"{row[name]:{form}}{unit}"


def portrait() -> Image.Image:
    """The chosen filter alone, enlarged by the page."""
    if bank.view in {"rgb", "grey"}:
        return Image.fromarray(sp.filters.tiles(bank, scaling, slice(chosen, chosen + 1))[0])
    return figures.signed(facts.pattern[chosen])


def beside(pictures: list[tuple[str, Image.Image]], width: int) -> None:
    """Pictures in a row, each with its name below."""
    with st.container(horizontal=True):
        for name, picture in pictures:
            show.picture(picture, alt=f"Filter {chosen} of {layer}: {name}", width=width, caption=name)


if max(bank.weight.shape[2:]) == 1:
    st.info("A 1×1 kernel has no pattern in space: it mixes channels. Its matrix is on the page *Weight matrices*.")
elif bank.view == "lines":
    show.figure(figures.taps(bank, chosen), alt=f"The weights of filter {chosen}", height=300)
else:
    shown = "as it is" if bank.view in {"rgb", "grey"} else "main pattern"
    limit = float(facts.pattern[chosen].abs().max())
    beside(
        [
            (shown, portrait()),
            ("Fourier magnitude", figures.spectrum(sp.filters.fourier(bank, chosen))),
            (f"main pattern ({say('pattern_share', '.0%')} of energy)", figures.signed(facts.pattern[chosen], limit)),
            (f"best Gabor (R² {say('gabor_r2', '.2f')})", figures.signed(facts.gabor_fit[chosen], limit)),
        ],
        width=190,
    )
    if bank.view == "rgb":
        beside(figures.channels(bank, chosen), width=120)

columns = st.columns(4)
columns[0].metric(
    "Orientation", say("orientation", ".0f", "°"), say("gabor_orientation", ".0f", "° Gabor"), "off", delta_arrow="off"
)
columns[1].metric(
    "Frequency", say("frequency", ".3f", " c/px"), say("bandwidth", ".1f", " octaves wide"), "off", delta_arrow="off"
)
columns[2].metric("Colourfulness", say("colourfulness", ".2f"), f"norm {row['norm']:.3g}", "off", delta_arrow="off")
separable = "–" if row["rank1"] is None else "separable" if row["rank1"] > 0.95 else "not separable"
columns[3].metric("Rank-1 energy", say("rank1", ".2f"), separable, "off", delta_arrow="off")
st.caption(
    f"Gabor: frequency {say('gabor_frequency', '.3f')} cycles a pixel, phase {say('gabor_phase', '.0f', '°')}, "
    f"σ {say('gabor_sigma_across', '.1f')} across and {say('gabor_sigma_along', '.1f')} pixels along the stripes."
)

if bank.view != "lines":
    st.subheader("Its response to the picture")
    response = cache.answer(
        "filter-response", (*here.key, layer, chosen), lambda: sp.filters.response(here.net, layer, chosen, here.seen)
    )
    beside(
        [
            ("what the network sees", here.crop),
            (f"response, −{response.abs().max():.3g} to +{response.abs().max():.3g}", figures.signed(response)),
            ("response over the picture", figures.overlay(here.crop, response)),
        ],
        width=280,
    )

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
    code=f'import sp_core as sp\n\nnet = sp.load("{here.source}")\nbank = sp.filters.bank(net, "{layer}")\n'
    f'facts = sp.filters.facts(bank)\nprint(facts.rows()[{chosen}])\nsp.figures.filters.sheet(bank, "{scaling}")',
)
