"""One pass over a data set fills the index of every layer.

The forward passes run on one private copy of the network, whose hooks note the spatial maximum of each map and its
place (:mod:`sp_core.patches.noting`); what was noted of a block of images is then counted in one go for the channels of
all layers. Springenberg et al., "Striving for Simplicity" (2015), figure 3, is made of the result.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sp_core.datasets.passes import Block, blocks
from sp_core.disk import locked
from sp_core.errors import SpError
from sp_core.nearest.plan import describe
from sp_core.nearest.recorder import Recorder
from sp_core.network import Network
from sp_core.patches import store
from sp_core.patches.counting import Counting
from sp_core.patches.noting import Notes
from sp_core.patches.plan import check_same, identify

MOST_TOP = 100
MOST_BATCH = 2048  # a block is at least a batch, and its sums are to be exact
SAVE_SECONDS = 2.0  # between two savings, at least
SAVE_SHARE = 100  # and as many times what a saving takes


@dataclass(frozen=True)
class Progress:
    """How far the building is.

    Attributes:
        done: images behind us, of this index (those of earlier runs too) and of the features that go with it.
        total: images it will have.
        seconds: since this run began.
        fresh: images that this run has looked at.
        saved: whether the folder now holds everything up to ``done``.
        skipped: images that could not be read.
    """

    done: int
    total: int
    seconds: float
    fresh: int
    saved: bool
    skipped: int = 0

    @property
    def remaining(self) -> float:
        """Seconds to go at the speed so far; NaN before there is one."""
        return self.seconds / self.fresh * (self.total - self.done) if self.fresh else math.nan


def build_patch_index(
    net: Network,
    dataset: Any,
    folder: str | Path,
    top: int = 9,
    *,
    layers: Iterable[str] | None = None,
    batch: int | None = None,
    resume: bool = True,
    start: int = 0,
    stop: int | None = None,
    engine: str = "local",
    features: str | Path | None = None,
    feature_layers: Iterable[str] | None = None,
) -> Iterator[Progress]:
    """Look at every image of ``dataset`` once and keep, for each channel of each layer, what drives it.

    The generator yields after every batch. It can be left at any time, or killed: called again with the same arguments
    it goes on where it was and ends with the same bytes. When the data set has grown at its end, only the new
    images are looked at. What is kept and in which form: :mod:`sp_core.patches.tally`.

    Args:
        net: the network; it is not touched.
        dataset: see :mod:`sp_core.datasets.source`; ``sp.datasets.open`` makes one from a name.
        folder: where the index is, or goes. It belongs to one network, data set and setting.
        top: how many images to keep at each end, 1 to 100; never two patches of one image.
        layers: names; None for every layer whose output is a map or a vector, without layers that only move values
            (pooling, padding, flattening); ``"compact"`` also leaves out convolutions that are followed at once by a
            normalisation, and ReLUs (the largest patches before and after a ReLU are the same).
        batch: images a forward pass; chosen by their size unless given. Other batches may change the last bit.
        resume: False throws away what ``folder`` holds of an earlier index.
        start: the first image of a part of the data set, to be put together with others by :func:`merge`.
        stop: one past its last.
        engine: ``"local"``, or ``"ray"``: the same on the machines of a Ray cluster (:mod:`sp_core.patches.on_ray`).
        features: a folder in which the same forward passes also leave what :func:`sp_core.nearest.build_features`
            writes with the same batches, byte for byte. Images that the index has and the features lack are looked at
            again. Of whole data sets only, and by the local engine.
        feature_layers: layers whose features are kept; by default at most six spread over the depth.

    Raises:
        SpError: a folder holds an index or features of something else, a layer does not exist, or a layer gives NaN.

    >>> import tempfile, sp_core as sp
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_size=(3, 32, 32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     last = list(build_patch_index(net, sp.datasets.open("textures", count=20), folder))[-1]
    ...     (last.done, len(sp.PatchIndex(folder).top("1:3")))
    (20, 9)
    """
    if not 1 <= top <= MOST_TOP:
        raise SpError(f"`top` must be 1 to {MOST_TOP} images; got {top}.")
    if batch is not None and not 1 <= batch <= MOST_BATCH:
        raise SpError(f"`batch` must be 1 to {MOST_BATCH} images; got {batch}.")
    stop = len(dataset) if stop is None else stop
    if not 0 <= start < stop <= len(dataset):
        raise SpError(f"{dataset.name} has images 0 to {len(dataset) - 1}; got start {start} and stop {stop}.")
    if features is None and feature_layers is not None:
        raise SpError("`feature_layers` are kept in the folder `features`; name one.")
    if features is not None and (engine != "local" or (start, stop) != (0, len(dataset))):
        raise SpError(
            f"`features` are of a whole data set and by the engine local; got images {start} to {stop - 1} of "
            f"{len(dataset)} and the engine {engine}. Make them apart, with sp.build_features."
        )
    run = _engine(engine, batch)  # before a folder is emptied
    header = identify(net, dataset, top, layers, batch)
    known = None if features is None else describe(net, dataset, feature_layers)
    state = _begin(net, dataset, Path(folder), header, start, resume)
    if features is None or known is None:
        return run(net, dataset, Path(folder), state, stop)
    recorder = Recorder(net, dataset, features, known, state.header["settings"]["batch"], resume)
    return _run(net, dataset, Path(folder), state, stop, recorder)


def _engine(name: str, batch: int | None) -> Callable[..., Iterator[Progress]]:
    if name == "ray":
        from sp_core.patches import on_ray

        return partial(on_ray.run, on_ray.load(), batch)
    if name != "local":
        raise SpError(f"`engine` must be local or ray; got '{name}'.")
    return _run


def build_part(net: Network, dataset: Any, header: dict[str, Any], start: int, stop: int) -> store.State:
    """What is known of images ``start … stop - 1`` alone, of the index that ``header`` describes; writes nothing."""
    state = store.State.empty(header, start)
    for _ in _run(net, dataset, None, state, stop):
        pass
    return state


# --- going on from what is there ------------------------------------------------------------------------------------


def _begin(net: Network, dataset: Any, folder: Path, header: dict[str, Any], start: int, resume: bool) -> store.State:
    if not resume and store.read_header(folder, any_format=True) is not None:
        shutil.rmtree(folder)
    old = store.read_header(folder)
    if old is not None:
        check_same(old, header, dataset, folder, start)
        state = store.load(folder)
        state.header = header | {"settings": old["settings"], "dataset": header["dataset"]}
        return state
    return store.State.empty(header, start)


# --- the pass -------------------------------------------------------------------------------------------------------


class _Pass:
    """What the notes of forward passes become: counted, a block at a time, in the tallies of ``state``."""

    def __init__(self, net: Network, state: store.State) -> None:
        self.net, self.state = net, state
        self.notes = Notes(net, state.columns)
        self.counting = Counting(state.tally, store.source(state.header["layers"]), net.device)

    def count(self, images: Tensor, labels: Tensor, first: int = 0) -> None:
        """Take what was noted of ``images``, the first of which is row ``first`` of the block, into the tallies."""
        if not len(images):
            return
        state = self.state
        heard, places = self.notes.read(slice(first, first + len(images)))
        maxima = self.notes.rise(heard)
        self._check(maxima, images)
        self.counting.add(maxima, places, images, labels, state.sample.add(images))
        state.images += len(images)
        known = labels[labels >= 0]
        state.class_counts += torch.bincount(known, minlength=len(state.class_counts))
        state.kept = torch.cat([state.kept, images.int()])
        state.labels = torch.cat([state.labels, labels.int()])

    def save(self, folder: Path | None) -> None:
        """Bring the tallies of ``state`` up to date, and write it where there is a folder."""
        self.counting.put_back(self.notes.rise)
        save(folder, self.state)

    def _check(self, maxima: Tensor, images: Tensor) -> None:
        if bool(maxima.sum().isfinite()) or bool(maxima.isfinite().all()):  # a finite sum has finite terms
            return
        wrong = ~maxima.isfinite()
        column = int(wrong.any(0).nonzero()[0])  # the first layer in which it shows
        name = next(name for name, where in self.state.columns.items() if column < where.stop)
        row = int(wrong[:, column].nonzero()[0])
        raise SpError(
            f"Layer {name} of {self.net.name} gives {maxima[row, column]:.0f} on image {int(images[row])}: "
            "the weights have diverged or the file is damaged; load another checkpoint."
        )


def _run(
    net: Network, dataset: Any, folder: Path | None, state: store.State, stop: int, recorder: Recorder | None = None
) -> Iterator[Progress]:
    """Images up to ``stop`` into ``state``, and their features to ``recorder``: from where the one behind is."""
    began = time.monotonic()
    fresh, saved_at, cost = 0, -math.inf, 0.0  # the first batch is saved at once, so that there is something to see
    grid = state.header["settings"]["batch"]
    saved = state.done > state.start
    edge = state.done
    if recorder is not None:
        first = recorder.done
        for done in recorder.catch_up(state.done):  # without the work of the index, which has these images
            fresh = done - first
            yield Progress(done, stop, time.monotonic() - began, fresh, True, state.skipped_count)
        edge = min(edge, recorder.done)
        recorder = recorder if recorder.done < stop else None
    if saved and edge >= stop:
        if not fresh:
            yield Progress(state.done, stop, 0.0, 0, True, state.skipped_count)
        return
    job = _Pass(net, state)
    if recorder is not None:
        recorder.watch(job.notes.clone)

    def take(block: Block, edge: int) -> None:
        """Count the images of ``block`` below ``edge``, which have all been noted."""
        of = (block.images >= state.done) & (block.images < edge)
        job.count(block.images[of], block.labels[of], int((block.images < state.done).sum()))
        bad = [image for image in block.bad if state.done <= image < edge]
        state.skipped = (state.skipped + bad)[: store.NAMED_SKIPS]
        state.skipped_count += len(bad)
        state.done = max(state.done, edge)

    try:
        for block in blocks(net, dataset, edge, stop, grid):
            job.notes.begin(len(block.images))
            while edge < block.end:
                start, edge = edge, min((edge // grid + 1) * grid, block.end)  # a resumed run cuts alike
                of = (block.images >= start) & (block.images < edge)
                job.notes.note(block.pixels[of])
                if recorder is not None:
                    recorder.hear(block.pixels[of], block.images[of], block.labels[of])
                fresh += edge - start
                if edge < block.end:
                    yield Progress(edge, stop, time.monotonic() - began, fresh, False, state.skipped_count)
            take(block, edge)
            if recorder is not None:
                recorder.write(edge)
            now = time.monotonic()
            saved = state.done >= stop or now - saved_at > max(SAVE_SECONDS, SAVE_SHARE * cost)
            if saved:
                job.save(folder)
                saved_at = time.monotonic()
                cost = saved_at - now
            yield Progress(edge, stop, time.monotonic() - began, fresh, saved, state.skipped_count)
    except GeneratorExit:  # stopped between two batches: nothing is lost
        if edge > state.done:
            take(block, edge)
            saved = False
        if not saved:
            job.save(folder)
        raise


def save(folder: Path | None, state: store.State) -> None:
    """Write ``state`` unless ``folder`` holds the same index farther on; without a folder, do nothing."""
    if folder is None:
        return
    with locked(folder):
        there = store.read_header(folder)
        # Another session may build the same index: the one that is ahead is kept.
        ahead = there is not None and there["start"] == state.start and there["done"] > state.done
        if not (ahead and there is not None and there["network"] == state.header["network"]):
            store.write(folder, state)


def merge(first: str | Path, second: str | Path, folder: str | Path) -> None:
    """Put two indexes over images ``a … b - 1`` and ``b … c - 1`` of one data set together into ``folder``.

    The result is byte for byte what one pass over ``a … c - 1`` writes, when ``b`` is a multiple of the batch.

    Raises:
        SpError: the two are not of one network, data set and setting, or do not follow one another.
    """
    a, b = store.load(first), store.load(second)
    for part in ("network", "dataset", "settings", "layers"):
        if a.header[part] != b.header[part]:
            raise SpError(f"{first} and {second} have another {part}; only parts of one index can be merged.")
    if a.done != b.start:
        raise SpError(
            f"{first} ends before image {a.done} and {second} begins with {b.start}; they must follow one another."
        )
    a.merge(b)
    with locked(folder):
        store.write(folder, a)
