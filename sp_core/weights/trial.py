"""A network with one layer replaced: what it then says, how often it is right, and how long the layer takes.

Multiply-accumulates promise what milliseconds do not always keep, so both are shown. Everything happens on private
copies; the network itself stays as it is.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network, logits
from sp_core.weights.low_rank import Factored, Site


def replaced(net: Network, layer: str, part: nn.Module) -> nn.Module:
    """A private copy of the network's module with ``part`` in the place of ``layer``, in evaluation mode.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> type(replaced(net, "0", nn.Identity())[0]).__name__, type(net.module[0]).__name__
    ('Identity', 'Conv2d')
    """
    clone = net.clone()
    parent, _, name = layer.rpartition(".")
    if not name:
        return part.eval()
    setattr(clone.get_submodule(parent), name, part)
    return clone.eval()


def layer_input(net: Network, layer: str, images: Tensor) -> Tensor:
    """What goes into the first call of ``layer`` for images ``[n, c, h, w]`` in [0, 1]; the network stops there.

    >>> net = Network(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> layer_input(net, "1", torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 3, 8, 8])
    """
    clone = net.clone()
    found: list[Tensor] = []

    def take(_part: nn.Module, inputs: Any) -> None:
        found.append(inputs[0])
        raise _Reached

    clone.get_submodule(layer).register_forward_pre_hook(take)
    with torch.no_grad(), contextlib.suppress(_Reached):
        clone(net.normalise(net.check_images(images)))
    if not found:
        raise SpError(f"{layer} did not run on this image, so there is nothing to measure; choose another layer.")
    return found[0]


class _Reached(Exception):
    """The layer has been reached."""


@dataclass(frozen=True)
class Effect:
    """What replacing a layer does to one image.

    Attributes:
        before, after: class the network chooses first, before and after.
        before_chance: probability of ``before`` in the network as it is.
        after_chance: probability of the same class, ``before``, after.
        new_chance: probability of the class chosen ``after``.
        change: relative change of all logits, ``‖after - before‖ / ‖before‖``; NaN when they are all zero.
    """

    before: int
    after: int
    before_chance: float
    after_chance: float
    new_chance: float
    change: float


def effect(net: Network, changed: nn.Module, image: Tensor) -> Effect:
    """Compare the network with its ``changed`` copy on one image ``[1, c, h, w]`` in [0, 1]."""
    inputs = net.normalise(net.check_images(image))[:1]
    with torch.no_grad():
        old, new = (_scores(module, inputs)[0].double().cpu() for module in (net.module, changed))
    first, second = int(old.argmax()), int(new.argmax())
    chances, others = old.softmax(0), new.softmax(0)
    norm = float(old.norm())
    return Effect(
        first,
        second,
        float(chances[first]),
        float(others[first]),
        float(others[second]),
        float((new - old).norm()) / norm if norm > 0 else math.nan,
    )


def _scores(module: nn.Module, inputs: Tensor) -> Tensor:
    output = logits(module, inputs)
    if output.ndim != 2:
        raise SpError(f"The network puts out {list(output.shape[1:])} an image, not a vector of class scores.")
    return output


@dataclass(frozen=True)
class Trial:
    """How the changed network does on the images seen so far.

    Attributes:
        seen, total: images so far, and in all.
        agreement: share of images on which both choose the same class first.
        before, after: share of labelled images that are right; NaN where no image has a label of this network.
        labelled: images whose label is known and is a class of this network.
    """

    seen: int
    total: int
    agreement: float
    before: float
    after: float
    labelled: int


def trial_steps(net: Network, changed: nn.Module, dataset: Any, count: int = 256, batch: int = 32) -> Iterator[Trial]:
    """Run the network and its ``changed`` copy over the first ``count`` images of a dataset, batch by batch.

    Labels count only when the dataset's classes are the network's, name by name.

    Raises:
        SpError: there is no image.
    """
    total = min(count, len(dataset))
    if total < 1:
        raise SpError(f"{dataset.name} has no images to try the network on; choose another dataset.")
    ours = net.classes is not None and tuple(dataset.classes) == tuple(net.classes)
    seen = same = right = still = labelled = 0
    for start in range(0, total, batch):
        images, labels = dataset.batch(start, min(start + batch, total), network=net)
        inputs = net.normalise(net.check_images(images))
        with torch.no_grad():
            old, new = (_scores(module, inputs).argmax(1).cpu() for module in (net.module, changed))
        known = (labels >= 0) if ours else torch.zeros_like(labels, dtype=torch.bool)
        seen += len(labels)
        same += int((old == new).sum())
        labelled += int(known.sum())
        right += int(((old == labels) & known).sum())
        still += int(((new == labels) & known).sum())
        accuracy = [value / labelled if labelled else math.nan for value in (right, still)]
        yield Trial(seen, total, same / seen, accuracy[0], accuracy[1], labelled)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one layer and of what replaces it, on one image, on this machine now.

    Attributes:
        original, factored: medians, milliseconds.
        repeats: how often each was run, taking turns.
        threads: how many CPU threads torch used; device: where it ran.
    """

    original: float
    factored: float
    repeats: int
    threads: int
    device: str


def timing(original: nn.Module, factored: nn.Module, inputs: Tensor, repeats: int = 15) -> Timing:
    """Time two layers on the same ``inputs`` ``[n, …]``, taking turns so that a busy machine is unfair to neither.

    >>> timing(nn.Identity(), nn.Identity(), torch.zeros(1, 3, 4, 4), repeats=3).repeats
    3
    """
    spans: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for turn in range(repeats + 2):
            for module, own in zip((original, factored), spans, strict=True):
                _wait(inputs)
                start = time.perf_counter()
                module(inputs)
                _wait(inputs)
                if turn >= 2:  # the first two warm caches and choose algorithms
                    own.append(1000 * (time.perf_counter() - start))
    first, second = (statistics.median(own) for own in spans)
    return Timing(first, second, repeats, torch.get_num_threads(), str(inputs.device))


def time_layers(net: Network, place: Site, row: Factored, image: Tensor) -> Timing:
    """Time a layer and what replaces it on what reaches it from one image ``[1, c, h, w]`` in [0, 1]."""
    return timing(place.module, row.layers, layer_input(net, place.layer, image))


def _wait(inputs: Tensor) -> None:
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
