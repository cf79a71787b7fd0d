"""One pass over a data set: the features of the chosen layers, and the pixels, of every image, block by block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_core.datasets.passes import batch_size
from sp_core.errors import SpError
from sp_core.nearest.plan import describe
from sp_core.nearest.recorder import Recorder
from sp_core.network import Network


@dataclass(frozen=True)
class Progress:
    """How far the building is.

    Attributes:
        done: images behind us, those of earlier runs too; they are on disk.
        total: images there will be.
        seconds: since this run began.
        fresh: images that this run has looked at.
    """

    done: int
    total: int
    seconds: float
    fresh: int


def build_features(
    net: Network,
    dataset: Any,
    folder: str | Path,
    layers: Iterable[str] | None = None,
    *,
    batch: int | None = None,
    resume: bool = True,
) -> Iterator[Progress]:
    """Look at every image of ``dataset`` once and keep its features in ``layers`` and its pixels.

    The generator yields after every block of 64 images, which is then on disk. It can be left at any time, or killed:
    called again it goes on where it was and ends with the same bytes. When the data set has grown at its end, only the
    new images are looked at. What is kept: :mod:`sp_core.nearest.features`. Images that cannot be read are left out.
    ``sp.build_patch_index`` with ``features`` writes the same on the way.

    Args:
        net: the network; it is not touched.
        dataset: see :mod:`sp_core.datasets.source`; ``sp.datasets.open`` makes one from a name.
        folder: where the features are, or go. It belongs to one network, data set and choice of layers.
        layers: names; by default at most six spread over the depth.
        batch: images a forward pass; chosen by their size unless given. Other batches may change the last bit, and
            those that 64 is no multiple of make blocks of another size.
        resume: False throws away what ``folder`` holds.

    Raises:
        SpError: the folder holds features of something else, a layer does not exist, or a layer gives NaN.

    >>> import tempfile, torch, sp_core as sp
    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), input_size=(3, 32, 32))
    >>> images = sp.datasets.open("textures", count=20)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     last = list(sp.build_features(net, images, folder, ["1"]))[-1]
    ...     found = sp.neighbours(folder, 7, "1", k=3)
    >>> last.done, len(found.images), 7 in found.images
    (20, 3, False)
    """
    if batch is not None and batch < 1:
        raise SpError(f"`batch` must be at least 1 image; got {batch}.")
    return _run(Recorder(net, dataset, folder, describe(net, dataset, layers), batch or batch_size(net), resume))


def _run(recorder: Recorder) -> Iterator[Progress]:
    began, total, first = time.monotonic(), recorder.total, recorder.done
    if first >= total:
        yield Progress(total, total, 0.0, 0)
    for done in recorder.catch_up(total):
        yield Progress(done, total, time.monotonic() - began, done - first)
