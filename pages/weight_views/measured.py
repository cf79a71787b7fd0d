"""What a changed network then says on a data set, and how long it takes: the loops that several views share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import streamlit as st

import sp_core as sp
from pages.patch_views import data
from pages.ui import live
from pages.ui.sidebar import Selection

IMAGES = 256
BATCH = 32


def on_images(
    here: Selection, key: str, settings: tuple[Any, ...], make: Callable[[], Any], label: str = "Try"
) -> sp.weights.Trial | None:
    """The network and what ``make()`` makes of it (a module) on images of the chosen data set; None before the run.

    ``settings`` are what changes the module; the data set is added. ``label`` is what the button says, before the
    number of images.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = data.choose()
    dataset = data.dataset(source)
    count = min(IMAGES, len(dataset))
    last, _ = live.run(
        lambda: sp.weights.trial_steps(here.net, make(), dataset, IMAGES, BATCH),
        key=key,
        settings=(*settings, source, dataset.fingerprint),
        total=-(-count // BATCH),
        draw=lambda step: None,
        text=lambda step: f"{step.seen} of {step.total} images, {step.agreement:.0%} as before",
        alt="",
        label=f"{label} on {count} images",
    )
    if last is not None:
        _said(last)
    return last


def _said(last: sp.weights.Trial) -> None:
    """Accuracy where the classes are the network's, agreement anyway."""
    one, two = st.columns(2)
    one.metric("Same first choice as before", f"{last.agreement:.1%}", f"{last.seen} images", "off", delta_arrow="off")
    if last.labelled:
        change = f"{100 * (last.after - last.before):+.1f} points from {last.before:.1%}"
        two.metric("Accuracy", f"{last.after:.1%}", change, **moved(last.after - last.before))
    else:
        two.caption("The classes of these images are not this network's, so there is no accuracy.")


def moved(change: float) -> dict[str, Any]:
    """How a metric shows a change: grey and without an arrow where the digits shown do not move."""
    return {} if abs(change) >= 0.0005 else {"delta_color": "off", "delta_arrow": "off"}


def milliseconds(key: str, settings: tuple[Any, ...], measure: Callable[[], sp.weights.Timing]) -> None:
    """Milliseconds as it was and changed, on this machine, once a person asks for it."""

    def once() -> Iterator[sp.weights.Timing]:
        yield measure()

    last, _ = live.run(
        once,
        key=key,
        settings=settings,
        total=1,
        draw=lambda step: None,
        text=lambda step: "measured",
        alt="",
        label="Measure milliseconds",
    )
    if last is not None:
        share = f"{last.factored / last.original:.2f} × original, {last.original:.2f}"
        st.metric("Milliseconds", f"{last.factored:.2f}", share, "off", delta_arrow="off")
        st.caption(f"Median of {last.repeats} runs in turns, {last.threads} threads on {last.device}.")
