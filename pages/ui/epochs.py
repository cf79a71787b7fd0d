"""The slider over the checkpoints of one training run, for pages that show weights, and what is followed over it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import streamlit as st

import sp_core as sp
from pages.ui import cache, networks, uploads
from pages.ui.sidebar import NETWORK, Selection
from pages.ui.text import unmarked
from sp_core.checkpoints.runs import Run, Snapshot, run_of
from sp_core.checkpoints.snapshots import made_like
from sp_core.weights import Moment

KEY = "epoch"
PATIENCE = 0.5  # seconds without a sign of life
ALL_AT_ONCE = 5e8  # multiply-accumulates of the spectra of a network, below which all its layers are followed together


@dataclass(frozen=True)
class Followed:
    """The run that the chosen network belongs to.

    Attributes:
        run: its files in order.
        sources: file to its name in the address bar.
        here: the chosen file.
    """

    run: Run
    sources: dict[str, str]
    here: Snapshot

    @property
    def unit(self) -> str:
        """What is counted: ``"epoch"``."""
        return self.run.unit


def slider(here: Selection) -> Followed | None:
    """Show the slider where the chosen network is one of a training run; it changes the chosen network."""
    found = followed(here.source)
    if found is None:
        return None
    labels = [row.label for row in found.run.snapshots]
    st.session_state[KEY] = found.here.label
    st.select_slider(
        found.unit.capitalize(),
        labels,
        key=KEY,
        on_change=_go,
        args=(found,),
        help=f"The {len(labels)} checkpoints of one training run, told by their names ({unmarked(found.run.name)}). "
        "Layer and filter stay as they are.",
    )
    return found


def _go(found: Followed) -> None:
    """Choose the network of the epoch that the slider stands on; what was said by hand holds for the whole run."""
    chosen = next((row for row in found.run.snapshots if row.label == st.session_state.get(KEY)), found.here)
    before, after = found.sources[found.here.file], found.sources[chosen.file]
    networks.say(after, **networks.by_hand(before))
    st.session_state[NETWORK] = after


def followed(source: str) -> Followed | None:
    """The run among the files beside the one that ``source`` names: the owner's folder, or this session's uploads."""
    kind, _, name = source.partition(":")
    if kind == "path":
        sizes: dict[str, int] | None = networks.owner_files()
        sources = {file: f"path:{file}" for file in sizes or ()}
    elif kind == "file":
        rows = {key: row["name"] for key, row in uploads.table().items() if row["what"] == "network"}
        sizes, sources = None, {file: f"file:{key}" for key, file in rows.items()}
        name = rows.get(name, "")
    else:
        return None
    run = run_of(name, sources, sizes)
    here = run.at(name) if run is not None else None
    return Followed(run, sources, here) if run is not None and here is not None else None


def moments(here: Selection, found: Followed, layer: str) -> tuple[Moment, ...]:
    """What is followed of ``layer`` over the run, read file by file while one watches; remembered for all viewers."""
    layers = None if sp.weights.cost(here.net) < ALL_AT_ONCE else (layer,)
    done: list[Moment] = []
    place, began = st.empty(), time.monotonic()
    for snapshot in found.run.snapshots:
        done.append(_moment(here, found, snapshot, layers))
        if time.monotonic() - began > PATIENCE:
            # At this call Streamlit can end the run when a person turns to something else; what is done is kept.
            place.progress(len(done) / len(found.run.snapshots), text=f"read {unmarked(snapshot.file)}")
    place.empty()
    return tuple(done)


def _moment(here: Selection, found: Followed, snapshot: Snapshot, layers: tuple[str, ...] | None) -> Moment:
    source = found.sources[snapshot.file]
    how = networks.how_to_read(source)

    def compute() -> Moment:
        try:
            net = made_like(how.read(), f"file {snapshot.file}", here.net)
            return sp.weights.moment(net, snapshot, layers)
        except sp.SpError as error:
            return sp.weights.unreadable(snapshot, error)

    return cache.answer("moment", (how.key, here.net.architecture, snapshot, layers), compute)


def left_out(rows: tuple[Moment, ...], layer: str) -> None:
    """Say which files of the run have no such layer, or cannot be read."""
    for one in rows:
        if one.reason:
            st.caption(f":material/warning: {unmarked(f'{one.label}: {one.reason}')}")
    other = [one.label for one in rows if not one.reason and layer not in one.ranks]
    if other:
        words = f"Without a layer {layer}, so of another network: {', '.join(other)}."
        st.caption(f":material/warning: {unmarked(words)}")
