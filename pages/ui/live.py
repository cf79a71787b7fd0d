"""Long work while one watches: an inline loop in the script, a picture of the state so far, and a Stop that stops.

The loop runs in the main script, with one ``st.`` call a step: that is where Streamlit can end it when a person
presses Stop or turns to something else. The generator is kept, so the work goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from PIL import Image

from pages.ui import cache, show

FRAMES_A_SECOND = 8


@dataclass
class _Job:
    """One piece of long work of one viewer: its generator, suspended between two steps, and the last record."""

    settings: Hashable
    steps: Iterator[Any] | None = None
    last: Any = None
    count: int = 0
    running: bool = False
    finished: bool = False
    error: Exception | None = field(default=None)


def run(
    make: Callable[[], Iterator[Any]],
    *,
    key: str,
    settings: Hashable,
    total: int,
    draw: Callable[[Any], Image.Image | None],
    text: Callable[[Any], str],
    alt: str,
    start: bool = False,
    label: str = "Run",
    width: int | str | None = None,
) -> tuple[Any, bool]:
    """Run ``make()`` to its end, step by step, and show it as it grows.

    Args:
        make: starts the work: returns a generator of records.
        key: names the work on this page (one at a time a page and viewer).
        settings: everything that changes the result; when it changes, the work starts over.
        total: how many records there will be, for the bar.
        draw: a record's picture (or None), shown at most eight times a second.
        text: a record's line of text.
        alt: what the picture shows, for people who do not see it.
        start: whether to start without being asked.
        label: what the button that starts it says.
        width: of the picture, in CSS pixels or ``"100%"``.

    Returns:
        The last record (None before the first) and whether the work is finished. Draw the final, exact picture from
        it yourself; while it runs this function shows frames of its own and then takes them away.
    """
    slot = f"live-{key}"
    job: _Job | None = st.session_state.get(slot)
    if job is None or job.settings != settings:
        job = _Job(settings, running=start)
        st.session_state[slot] = job
    _buttons(job, slot, label)
    if job.running and not job.finished:
        _loop(job, make, total, _Frame(draw, text, alt, width))
    if job.error is not None:
        raise job.error
    return job.last, job.finished


def _buttons(job: _Job, slot: str, label: str) -> None:
    """Stop while it runs; Run, Continue or Again otherwise. They come before the loop, or Stop would not be there."""
    if job.running and not job.finished:
        st.button("Stop", key=f"{slot}-stop", on_click=_set, args=(job, False), icon=":material/stop:")
    elif job.finished:
        st.button("Again", key=f"{slot}-again", on_click=_restart, args=(job,), icon=":material/replay:")
    else:
        words = "Continue" if job.count else label
        st.button(
            words, key=f"{slot}-go", on_click=_set, args=(job, True), type="primary", icon=":material/play_arrow:"
        )


def _set(job: _Job, running: bool) -> None:
    job.running = running


def _restart(job: _Job) -> None:
    job.steps, job.last, job.count, job.finished, job.error, job.running = None, None, 0, False, None, True


@dataclass(frozen=True)
class _Frame:
    """How a record is shown while the work goes on."""

    draw: Callable[[Any], Image.Image | None]
    text: Callable[[Any], str]
    alt: str
    width: int | str | None

    def html(self, record: Any) -> str | None:
        image = self.draw(record)
        if image is None:
            return None
        return show.picture_html(image, self.alt, self.width, quality=90 if image.width > 256 else None)


def _loop(job: _Job, make: Callable[[], Iterator[Any]], total: int, frame: _Frame) -> None:
    bar, place = st.empty(), st.empty()
    drawn = 0.0
    bar.progress(min(1.0, job.count / max(total, 1)), text="starting …")
    while True:
        try:
            # A rerun may start while the old run is still in its step; the turn also keeps the two apart.
            with cache.turn():
                job.steps = job.steps or make()
                record = next(job.steps)
                job.last, job.count = record, job.count + 1
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - kept, and raised again by the run that follows
            job.error, job.running, job.steps = error, False, None
            break
        # From here Streamlit may end the run (Stop, another page); the generator waits between two steps.
        bar.progress(min(1.0, job.count / max(total, 1)), text=frame.text(record))
        now = time.monotonic()
        if now - drawn > 1 / FRAMES_A_SECOND:
            body = frame.html(record)
            if body is not None:
                place.html(body)
            drawn = now
    if job.error is None:
        job.finished, job.running, job.steps = True, False, None
    bar.empty()
    place.empty()
    st.rerun()  # so that Stop becomes Again and the page draws the exact result
