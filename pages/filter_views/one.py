"""One filter taken apart: its channels, spectrum, Gabor function, and its response to the picture."""

from __future__ import annotations

import streamlit as st
from PIL import Image

import sp_core as sp
from pages.ui import cache, show
from pages.ui.sidebar import Selection
from sp_core.figures import filters as figures


def draw(
    here: Selection, bank: sp.filters.FilterBank, facts: sp.filters.FilterFacts, chosen: int, scaling: str
) -> None:
    """Everything about filter ``chosen``."""
    row = facts.rows()[chosen]
    st.subheader(f"Filter {chosen}" + (" (dead)" if row["dead"] else " (weak)" if row["weak"] else ""))
    if max(bank.weight.shape[2:]) == 1:
        st.info("A 1×1 kernel has no pattern in space: it mixes channels. Its matrix is on the page *Weight matrices*.")
    elif bank.view == "lines":
        show.figure(figures.taps(bank, chosen), alt=f"The weights of filter {chosen}", height=360)
    else:
        _pictures(bank, facts, chosen, scaling)
    _numbers(row, bank.view == "lines")
    if bank.view == "lines" or bank.depth > 1:
        return
    if here.net.has_graph:
        _response(here, bank.layer, chosen)
    else:
        st.caption(
            ":material/account_tree: Its response to the picture needs a forward pass, and of this file only the "
            "weights are known."
        )


def where(bank: sp.filters.FilterBank, facts: sp.filters.FilterFacts, chosen: int) -> None:
    """Where all filters lie in orientation and frequency; of lines in frequency and length."""
    if bank.view == "lines":
        st.markdown("**Frequency and norm of all filters**")
        alt = f"Frequency and norm of the filters of {bank.layer}; filter {chosen} is marked"
        show.figure(figures.frequency_and_norm(facts, chosen), alt=alt, height=360)
        st.caption("The frequency is where the spectrum of a filter, summed over its input channels, has its peak.")
        return
    st.markdown("**Orientation and frequency of all filters**")
    alt = f"Orientation and spatial frequency of the filters of {bank.layer}; filter {chosen} is marked"
    show.figure(figures.orientation_and_frequency(facts, chosen), alt=alt, height=360)
    st.caption(
        "Colour is colourfulness; a larger dot is a longer filter. "
        "Blobs, which have no orientation, and dead filters are left out."
    )


def _pictures(bank: sp.filters.FilterBank, facts: sp.filters.FilterFacts, chosen: int, scaling: str) -> None:
    """The filter, its Fourier magnitude, its main pattern and the Gabor function that fits it; then its colours."""
    coloured = bank.view in {"rgb", "grey"}
    pattern, row = facts.pattern[chosen], facts.rows()[chosen]
    limit = float(pattern.abs().max())
    pictures = [
        ("Fourier magnitude", figures.spectrum(sp.filters.fourier(bank, chosen))),
        (f"main pattern ({_say(row, 'pattern_share', '.0%')} of energy)", figures.signed(pattern, limit)),
        (f"best Gabor (R² {_say(row, 'gabor_r2', '.2f')})", figures.signed(facts.gabor_fit[chosen], limit)),
    ]
    if coloured:
        alone = sp.filters.tiles(bank, scaling, slice(chosen, chosen + 1))[0]
        pictures.insert(0, ("the filter", Image.fromarray(alone)))
    _beside(pictures, f"Filter {chosen} of {bank.layer}")
    if bank.view == "rgb":
        _beside(figures.channels(bank, chosen), f"Filter {chosen} of {bank.layer}")


def _numbers(row: dict[str, float | int | bool | None], line: bool) -> None:
    rank1 = row["rank1"]
    separable = "–" if rank1 is None else "separable" if rank1 > 0.95 else "not separable"
    frequency = "Cycles a sample" if line else "Cycles a pixel"
    cells = [
        ("Orientation", _say(row, "orientation", ".0f", "°"), _say(row, "gabor_orientation", ".0f", "° Gabor")),
        (frequency, _say(row, "frequency", ".3f"), _say(row, "bandwidth", ".1f", " octaves wide")),
        ("Colourfulness", _say(row, "colourfulness", ".2f"), _say(row, "norm", ".3g", " norm")),
        ("Rank-1 energy", _say(row, "rank1", ".2f"), separable),
    ]
    if line:  # a line has no orientation and no rows and columns
        share = _say(row, "pattern_share", ".0%", " in the main pattern")
        cells = [cells[1], ("Norm", _say(row, "norm", ".3g"), share), ("Mean weight", _say(row, "mean", ".3g"), "–")]
    for column, (name, value, below) in zip(st.columns(4), cells, strict=False):
        column.metric(name, value, None if below == "–" else below, "off", delta_arrow="off")
    if not line:
        st.caption(
            f"Gabor: frequency {_say(row, 'gabor_frequency', '.3f')} cycles a pixel, phase "
            f"{_say(row, 'gabor_phase', '.0f', '°')}, σ {_say(row, 'gabor_sigma_across', '.1f')} across and "
            f"{_say(row, 'gabor_sigma_along', '.1f')} pixels along the stripes."
        )


def _response(here: Selection, layer: str, chosen: int) -> None:
    """The channel's output on the current picture, alone and over the picture."""
    st.subheader("Its response to the picture")
    response = cache.answer(
        "filter-response", (*here.key, layer, chosen), lambda: sp.filters.response(here.net, layer, chosen, here.seen)
    )
    top = f"{float(response.abs().max()):.3g}"
    pictures = [
        ("what the network sees", here.crop),
        (f"response, −{top} to +{top}", figures.signed(response)),
        ("response over the picture", figures.overlay(here.crop, response)),
    ]
    _beside(pictures, f"Filter {chosen} of {layer}")


def _beside(pictures: list[tuple[str, Image.Image]], what: str) -> None:
    """Pictures in a row that fills the page, each with its name below."""
    for column, (name, picture) in zip(st.columns(len(pictures)), pictures, strict=True):
        with column:
            show.picture(picture, alt=f"{what}: {name}", width="100%", caption=name)


def _say(row: dict[str, float | int | bool | None], name: str, form: str, unit: str = "") -> str:
    """A number of the filter, or a dash where there is none."""
    return "–" if row[name] is None else f"{row[name]:{form}}{unit}"
