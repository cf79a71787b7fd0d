"""The second half of the backprop page: one attribution method, its map, captum's beside it, and two tests of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st

from pages.backprop_views import captums, one_map, second_opinion
from pages.ui import cache, live, pick, show
from pages.ui.sidebar import Selection
from sp_core.attribution import Attribution, attribute, attribution_steps, importance, record_count
from sp_core.errors import SpError
from sp_core.faithfulness import Curves, Randomised, insertion_deletion_steps, randomisation
from sp_core.figures import maps
from sp_core.methods import METHODS, TITLES

SLOW = {"integrated_gradients", "smoothgrad", "occlusion"}
STEPS = 16  # of the insertion and deletion curves: 4 curves of 17 images
SOURCES = {
    "gradient": "Simonyan et al. 2014",
    "deconvnet": "Zeiler and Fergus 2014",
    "guided": "Springenberg et al. 2015",
    "integrated_gradients": "Sundararajan et al. 2017, equation 1",
    "deep_lift": "Shrikumar et al. 2017, section 3.5.1 (Rescale rule)",
    "smoothgrad": "Smilkov et al. 2017",
    "grad_cam": "Selvaraju et al. 2017, equations 1 and 2",
    "guided_grad_cam": "Selvaraju et al. 2017, section 3.2",
    "occlusion": "Zeiler and Fergus 2014, section 4.2",
    "lrp": "Bach et al. 2015, equation 58; as a gradient: Ancona et al. 2018, proposition 1",
}


def section(here: Selection, goal: str, view: str) -> None:
    """Draw the section: pick a method, show its map, test it."""
    st.header("Any attribution, tested")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = ["grad_cam", *(name for name in METHODS if name != "grad_cam")]
        pick.by_key("method", TITLES)
        method = st.selectbox("Method", names, format_func=TITLES.get, key="method", bind="query-params", width=240)
        settings = _settings(here.net, method)
        beside = captums.asked()
    try:
        found = _compute(here, goal, method, settings)
    except SpError as error:  # a method that is not defined here is an answer, not a mistake
        st.info(str(error), icon=":material/info:")
        if beside:
            _undefined(here, goal, method, settings, view)
        return
    if found is None:
        st.caption("Press Run: this method sends many variants of the image through the network.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _map(here, goal, found, view, None if beside else here.net.architecture)
    with right:
        if beside:
            captums.column(here, goal, method, settings, view, found)
        if st.toggle("Test our map", key="test", bind="query-params"):
            try:
                _tests(here, goal, found, view)
            except SpError as error:
                st.info(str(error), icon=":material/info:")
        else:
            st.caption(
                "The test reveals and blanks pixels in the map's order, and draws the map again after the "
                "weights are shuffled. It takes some seconds."
            )


def _settings(net: Any, method: str) -> tuple[tuple[str, Any], ...]:
    """The method's controls; the settings as a sorted tuple, for cache keys."""
    chosen: dict[str, Any] = {}
    if method == "integrated_gradients":
        chosen["steps"] = st.slider("Steps", 8, 256, 32, 8, key="steps", bind="query-params", width=200)
        chosen["baseline"] = _baseline("black")
    elif method == "deep_lift":
        chosen["baseline"] = _baseline("blurred")
    elif method == "smoothgrad":
        chosen["samples"] = st.slider("Samples", 8, 128, 32, 8, key="samples", bind="query-params", width=200)
        chosen["noise"] = st.slider("Noise", 0.0, 0.5, 0.15, 0.05, key="noise", bind="query-params", width=200)
        chosen["seed"] = pick.number("Seed", key="seed", top=9999)
    elif method == "occlusion":
        least = min(net.input_size[1:])
        window = st.slider(
            "Window", 2, max(3, least // 2), max(2, round(least / 7)), key="window", bind="query-params", width=200
        )
        chosen["window"] = window
    elif method in {"grad_cam", "guided_grad_cam"}:
        layers = [layer.name for layer in net.layers if layer.is_map and min(layer.output_shape[1:]) > 1]
        if st.session_state.get("cam") not in ["last", *layers]:
            st.session_state.pop("cam", None)
        layer = st.selectbox(
            "At layer", ["last", *layers[::-1]], key="cam", bind="query-params", width=240, help=pick.left_out(net)
        )
        chosen["layer"] = None if layer == "last" else layer
    return tuple(sorted(chosen.items()))


def _baseline(default: str) -> str:
    """What the image is compared with; one choice for the methods that need it."""
    names = ["blurred", "black", "mean", "white"]
    known = "baseline" in st.session_state
    return st.segmented_control(
        "From", names, default=None if known else default, key="baseline", bind="query-params", required=True
    )


def _compute(here: Selection, goal: str, method: str, settings: tuple[tuple[str, Any], ...]) -> Attribution | None:
    """The map: at once where that is quick, with a button and a bar where it is not."""
    net, seen = here.net, here.seen
    key = (*here.key, goal, method, settings)
    if method not in SLOW:
        return cache.answer("attribution", key, lambda: attribute(net, seen, goal, method, **dict(settings)))
    last, finished = live.run(
        lambda: attribution_steps(net, seen, goal, method, **dict(settings)),
        key="attribution",
        settings=key,
        total=record_count(net, method, **dict(settings)),
        draw=lambda step: None,
        text=lambda step: f"{TITLES[method]}: {step.done} of {step.total}",
        alt=TITLES[method],
    )
    return last.answer if finished else None


def _undefined(here: Selection, goal: str, method: str, settings: tuple[tuple[str, Any], ...], view: str) -> None:
    """What captum makes of a network that our method is not defined on."""
    left, _ = st.columns(2, gap="large")
    with left, suppress(SpError):  # where the question itself has no answer, the sentence above has said so
        captums.column(here, goal, method, settings, view, None)


def _map(here: Selection, goal: str, found: Attribution, view: str, recorded: str | None) -> None:
    """The map with what it adds up to, its notes and its downloads; ``recorded`` names what captum was recorded on."""
    name = TITLES[found.method]
    values = found.map[0].numpy(force=True)
    picture = one_map.picture(here.crop, found.method, values, view)
    words = one_map.ends(found.method, values, view)
    st.markdown(f"**{name}** of {found.targets[0]}")
    show.picture(picture, alt=f"{name} of {found.targets[0]} on {here.image_name}", width="100%", caption=words)
    if found.gap is not None and found.expected is not None:
        st.caption(_completeness(float(found.gap[0]), float(found.expected[0])))
    for note in found.notes:
        st.caption(note)
    if found.method == "deep_lift":
        st.caption(second_opinion.on_deep_lift(recorded))
    if found.method == "lrp":
        st.caption(second_opinion.on_lrp(recorded))
    st.caption(f"Source: {SOURCES[found.method]}")
    settings = "".join(f", {key}={value!r}" for key, value in found.settings)
    code = (
        f"import sp_core as sp\n\nnet = {here.code}\n"
        "image = net.view(sp.open_image('picture.png'))[None]\n"
        f"answer = sp.attribute(net, image, {goal!r}, {found.method!r}{settings})"
    )
    show.provenance(here, method=name, target=found.targets[0])
    show.downloads(f"attribution-{found.method}", picture=picture, numbers={"map": values}, code=code)


def _completeness(gap: float, expected: float) -> str:
    share = f", {abs(gap / expected):.1g} of it" if expected and abs(gap) >= 1e-3 * abs(expected) else ""
    return f"Adds up to {gap + expected:.4g}; expected {expected:.4g}: completeness error {gap:+.2g}{share}."


def _tests(here: Selection, goal: str, found: Attribution, view: str) -> None:
    """Insertion and deletion curves, and the map on shuffled weights."""
    key = (*here.key, goal, found.method, found.settings)
    st.markdown("**The same map with shuffled weights**")
    for column, which in zip(st.columns(2), ("last", "all"), strict=True):
        other = cache.answer("shuffled", (*key, which), lambda which=which: _shuffled(here, goal, found, which))
        with column:
            _shuffled_map(here, other, view)
    st.markdown("**Insertion and deletion**")
    last, finished = live.run(
        lambda: insertion_deletion_steps(here.net, here.seen, goal, importance(found)[0], STEPS),
        key="curves",
        settings=key,
        total=4 * 2 + 1,
        draw=lambda step: None,
        text=lambda step: f"{step.done} of {step.total} images",
        alt="Insertion and deletion",
        start=True,
    )
    if finished:
        _curves(last.curves)


def _shuffled(here: Selection, goal: str, found: Attribution, which: str) -> Randomised:
    return randomisation(here.net, here.seen, goal, found, which)


def _shuffled_map(here: Selection, other: Randomised, view: str) -> None:
    words = "last layer" if other.which == "last" else "all layers"
    if other.correlation != other.correlation:  # NaN: one of the two maps is constant
        verdict = "no correlation: a map is constant"
    else:
        verdict = f"rank correlation {other.correlation:.2f}"
    values = other.attribution.map[0].numpy(force=True)
    picture = one_map.picture(here.crop, other.attribution.method, values, view)
    show.picture(picture, alt=f"The map with {words} shuffled", width="100%", caption=f"{words}: {verdict}")


def _signed(value: float) -> str:
    """``"+0.12"``; what rounds to nothing is ``"+0.00"``, also from below."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _curves(curves: Curves) -> None:
    """The figure and what it says in one sentence."""
    show.figure(maps.curves(curves), alt="Insertion and deletion curves", height=380, key="curves-figure")
    inserted = curves.insertion_score - curves.random_insertion_score
    deleted = curves.random_deletion_score - curves.deletion_score
    st.caption(
        f"Area under insertion {curves.insertion_score:.2f} ({_signed(inserted)} against random order; more is "
        f"better), under deletion {curves.deletion_score:.2f} ({_signed(deleted)} better than random order). {STEPS} "
        "steps, blanked pixels in the mean colour. Source: Petsiuk et al. 2018; shuffled weights: Adebayo et al. 2018."
    )
