"""Attributions: how much each pixel has to do with a class or a unit, by one of several definitions.

The methods themselves are in :mod:`sp_core.methods`; here they are asked, and their answers put together.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.methods import BATCH, METHODS, SENSITIVITIES, Job, Map, corners_of, window_of
from sp_core.network import Network
from sp_core.targets import Target, read_target, values


@dataclass(frozen=True)
class Attribution:
    """One map an image.

    Attributes:
        method: a key of ``METHODS``.
        map: ``[n, c, h, w]``, or ``[n, 1, h, w]`` where the method has one value a pixel; signed, but for Grad-CAM,
            which has no negative values. The methods' texts say in which unit.
        values: ``[n]``, the target's value on each image.
        targets: what the target is called in each image.
        expected: ``[n]``, what the map should add up to (integrated gradients, DeepLift, LRP), else None.
        gap: ``[n]``, sum of the map minus ``expected``: the completeness error, else None.
        settings: the settings that were used, defaults included.
        notes: sentences a person should read.
    """

    method: str
    map: Tensor
    values: Tensor
    targets: tuple[str, ...]
    expected: Tensor | None
    gap: Tensor | None
    settings: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """Progress of an attribution: ``done`` of ``total`` parts; ``answer`` is None before the last."""

    done: int
    total: int
    answer: Attribution | None = None


def attribute(net: Network, images: Tensor, target: Target, method: str, **settings: Any) -> Attribution:
    """The map of ``method`` for ``target`` on images ``[n, c, h, w]`` (or one ``[c, h, w]``) in [0, 1].

    Args:
        net: the network; it is left as it was found.
        images: float, in [0, 1].
        target: as of :func:`sp_core.backprop`. The position of a unit is found on the image and then kept.
        method: a key of ``METHODS``.
        **settings: of the method; see its function.

    Raises:
        SpError: no such method, setting or target, or the method is not defined for this network (and why).

    >>> import sp_core as sp
    >>> net = sp.load("bundled:textures-alexnet")
    >>> sp.attribute(net, torch.rand(1, *net.input_size), 3, "occlusion").map.shape[1]
    1
    """
    for step in attribution_steps(net, images, target, method, **settings):
        if step.answer is not None:
            return step.answer
    raise AssertionError("the last step has the answer")


def attribution_steps(net: Network, images: Tensor, target: Target, method: str, **settings: Any) -> Iterator[Step]:
    """:func:`attribute` as a generator of :class:`Step`; the last one holds the answer."""
    chosen = check_settings(method, settings)
    batch = net.check_images(images).detach()
    if not len(batch):
        raise SpError("There is no image: `images` has 0 rows.")
    with torch.inference_mode(False), torch.no_grad():
        batch = batch.clone()
        aim = read_target(net, target, len(batch))
        found = [values(net, batch[i : i + 1], aim.of(i)) for i in range(len(batch))]
    maps = []
    for index, (value, fixed) in enumerate(found):
        work = METHODS[method](Job(net, batch[index : index + 1], fixed, float(value)), **chosen)
        while True:
            try:
                with torch.inference_mode(False), torch.enable_grad():
                    done, total = next(work)
            except StopIteration as end:
                maps.append(end.value)
                break
            yield Step(index * total + done, len(batch) * total)
    yield Step(1, 1, _answer(net, method, chosen, maps, found))


def check_settings(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """All settings of ``method``, defaults included; raises SpError for what is unknown."""
    if method not in METHODS:
        raise SpError(f"`method` must be one of {', '.join(METHODS)}; got '{method}'.")
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(METHODS[method]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in settings:
        if name not in known:
            has = f"has the settings {', '.join(known)}" if known else "has no settings"
            raise SpError(f"{method} {has}; got '{name}'.")
    return {**known, **settings}


def _answer(net: Network, method: str, settings: dict[str, Any], maps: list[Map], found: list[Any]) -> Attribution:
    whole = torch.cat([part.values for part in maps]).detach()
    notes = [note for part in maps for note in part.notes]
    numbers = torch.cat([value for value, _ in found])
    if not bool(numbers.isfinite().all() and whole.isfinite().all()):
        notes.append("The map or its target is not finite: the network overflows on this image.")
    elif not bool(whole.any()):
        notes.append("The map is zero everywhere: nothing that this method looks at changes the target.")
    expected = gap = None
    if all(part.expected is not None for part in maps):
        expected = torch.tensor([part.expected for part in maps], dtype=torch.float64)
        gap = whole.double().flatten(1).sum(1).cpu() - expected
    return Attribution(
        method=method,
        map=whole,
        values=numbers,
        targets=tuple(name for _, aim in found for name in aim.names(net)),
        expected=expected,
        gap=gap,
        settings=tuple(sorted(settings.items())),
        notes=tuple(dict.fromkeys(notes)),
    )


def record_count(net: Network, method: str, **settings: Any) -> int:
    """How many records :func:`attribution_steps` yields for one image of the network's own size."""
    chosen = check_settings(method, settings)
    if method in {"smoothgrad", "integrated_gradients"}:
        return math.ceil(int(chosen["samples" if method == "smoothgrad" else "steps"]) / BATCH) + 1
    if method == "occlusion":
        height, width = net.input_size[1:]
        window, stride = window_of(height, width, chosen["window"], chosen["stride"])
        return math.ceil(len(corners_of(height, width, window, stride)) / BATCH) + 1
    return 3 if method == "guided_grad_cam" else 2


def importance(attribution: Attribution) -> Tensor:
    """One number a pixel, ``[n, h, w]``, larger is more important: by it pixels are ranked.

    Sensitivities count by magnitude, summed over colours; the others by their signed sum, for there the sign says
    whether a pixel speaks for the target.
    """
    signed = attribution.method not in SENSITIVITIES
    return (attribution.map if signed else attribution.map.abs()).sum(1)
