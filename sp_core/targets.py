"""What a picture is made for: a class, or a unit of a layer, as one number an image that can be differentiated."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network, Unit

Target = int | str | Unit | Sequence[int] | Sequence[Unit] | Tensor


@dataclass(frozen=True)
class Aim:
    """One number an image: the logit of a class, or the activation of one unit of a layer.

    Attributes:
        layer: the layer's name; None means the logits.
        channels: the class or channel of each image.
        positions: ``(y, x)`` of each image; None where there is no position or it is still to be found: the place where
            the channel is strongest in that image.
    """

    layer: str | None
    channels: tuple[int, ...]
    positions: tuple[tuple[int, int] | None, ...]

    def names(self, net: Network) -> tuple[str, ...]:
        """What the number of each image is called: ``"layer4:20@3,5"`` or the class's name."""
        if self.layer is None:
            return tuple(net.class_name(channel) for channel in self.channels)
        pairs = zip(self.channels, self.positions, strict=True)
        return tuple(str(Unit(self.layer, channel, position)) for channel, position in pairs)

    def of(self, image: int) -> Aim:
        """The aim of one image alone."""
        return Aim(self.layer, self.channels[image : image + 1], self.positions[image : image + 1])

    def times(self, count: int) -> Aim:
        """The aim of one image for ``count`` variants of it."""
        return Aim(self.layer, self.channels * count, self.positions * count)


def parse_target(net: Network, text: str) -> int | Unit:
    """Read a target as a person writes it: a class number, a class name, or ``layer:channel[@y,x]``.

    >>> import sp_core as sp
    >>> parse_target(sp.load("bundled:textures-alexnet"), "7")
    7
    """
    text = text.strip()
    if text.isdecimal():
        return net.check_class(int(text))
    if net.classes is not None and text.casefold() in (names := [name.casefold() for name in net.classes]):
        return names.index(text.casefold())
    if ":" not in text:
        raise SpError(
            f"'{text}' is not a class of {net.name}; give a class number (0 to {net.class_count - 1}), "
            "a class name, or a unit such as layer4:20."
        )
    unit = Unit.parse(text)
    net.check(unit)
    return unit


def read_target(net: Network, target: Target, images: int) -> Aim:
    """The aim of ``images`` images. One class or unit holds for all of them; a list has one for each.

    Raises:
        SpError: the class, layer, channel or position does not exist, or the list has the wrong length.
    """
    if isinstance(target, str):
        target = parse_target(net, target)
    if isinstance(target, Tensor):
        target = target.tolist()
    items: list[Any] = list(target) if isinstance(target, Sequence) else [target] * images
    if len(items) != images:
        raise SpError(f"A list of targets needs one for each image: {images}; got {len(items)}.")
    if items and all(isinstance(item, Unit) for item in items):
        for unit in set(items):
            net.check(unit)
        layers = {unit.layer for unit in items}
        if len(layers) > 1:
            raise SpError(f"The units of one call must be of one layer; got {', '.join(sorted(layers))}.")
        return Aim(layers.pop(), tuple(u.channel for u in items), tuple(u.position for u in items))
    if any(isinstance(item, bool) or not hasattr(item, "__index__") for item in items):
        raise SpError(f"A target is a class number or a unit such as 'layer4:20'; got {target!r}.")
    return Aim(None, tuple(int(item) for item in items), (None,) * images)


def values(net: Network, images: Tensor, aim: Aim) -> tuple[Tensor, Aim]:
    """The aimed-at numbers ``[n]`` of images ``[n, c, h, w]`` in [0, 1], differentiable; and the aim with positions.

    The forward pass stops at the aim's layer and runs on nothing that another thread sees changed.
    """
    inputs = net.normalise(images)
    inputs = inputs.clone() if inputs is images else inputs  # an in-place first layer may not touch the images
    if aim.layer is None:
        return pick(net.module(inputs), aim)
    with borrowed(net) as copy:
        found = capture(copy, inputs, [aim.layer])[aim.layer]
    return pick(found, aim)


_idle: WeakKeyDictionary[Network, list[nn.Module]] = WeakKeyDictionary()
_lock = threading.Lock()
IDLE = 4  # private copies of one network that are kept for the next call; each is a structure without weights


@contextmanager
def borrowed(net: Network) -> Iterator[nn.Module]:
    """A private copy of ``net``'s module, for one caller at a time, to hang hooks on and take them off again.

    Making one anew costs up to as much as a forward pass (26 ms for DenseNet-121), so they are used again; one that an
    exception passed through is not.
    """
    with _lock:
        kept = _idle.setdefault(net, [])
        copy = kept.pop() if kept else None
    copy = net.clone() if copy is None else copy
    yield copy
    with _lock:
        if len(kept) < IDLE:
            kept.append(copy)


def pick(output: Any, aim: Aim) -> tuple[Tensor, Aim]:
    """The aimed-at numbers in the output ``[n, c]`` or ``[n, c, h, w]`` of the aim's layer, and the aim with positions.

    Of a channel without a position the strongest position is taken, the first one in reading order where several are.
    """
    if aim.layer is None and (not isinstance(output, Tensor) or output.ndim != 2):
        raise SpError("The network does not end in one vector of class scores; choose a unit of a layer instead.")
    if max(aim.channels) >= output.shape[1] or min(aim.channels) < 0:
        wrong = next(channel for channel in aim.channels if not 0 <= channel < output.shape[1])
        raise SpError(f"The network has classes 0 to {output.shape[1] - 1}; got {wrong}.")
    rows = torch.arange(output.shape[0], device=output.device)
    maps = output[rows, torch.tensor(aim.channels, device=output.device)]  # [n] or [n, h, w]
    if maps.ndim != 3:
        return maps.flatten(1).amax(1) if maps.ndim > 1 else maps, aim
    width = maps.shape[2]
    best = maps.detach().flatten(1).argmax(1).tolist()
    found = tuple(place or (index // width, index % width) for place, index in zip(aim.positions, best, strict=True))
    y, x = torch.tensor(found, device=output.device).T
    return maps[rows, y, x], replace(aim, positions=found)
