"""Objectives: what a picture is asked for. An objective is ``(Probe) -> Tensor[n]``, one number an image.

A probe is called with a layer's name and gives that layer's output for the n images, ``[n, c, h, w]`` or ``[n, c]``.
Objectives are added, subtracted and multiplied by numbers, and their names follow::

    channel("layer3", 7) - 0.5 * channel("layer3", 9)        # "layer3:7 − 0.5 × layer3:9"

After Lucid's objectives (Olah et al., Feature Visualization, Distill 2017). Every value is differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sp_core.errors import SpError

OUTPUT = ""  # the layer name of what the whole network puts out
_CHUNK = 4096  # positions of a map that are compared with a guide at once: bounds the memory


@dataclass(frozen=True)
class Probe:
    """The outputs of layers for n images, and what some of them were before a ReLU cut off the negative part."""

    maps: dict[str, Tensor]
    before: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, layer: str) -> Tensor:
        """The output of ``layer``: ``[n, c, h, w]`` or ``[n, c]``."""
        return self.maps[layer]

    def unrectified(self, layer: str) -> Tensor:
        """The output of ``layer`` before its ReLU, where it ends in one; else the output."""
        return self.before.get(layer, self.maps[layer])

    def split(self, size: int) -> list[Probe]:
        """The probes of ``size`` images each; together they cost one pass over the maps' gradients, not one each."""
        maps, before = ({name: t.split(size) for name, t in part.items()} for part in (self.maps, self.before))
        counts = {len(pieces) for pieces in (*maps.values(), *before.values())}
        if len(counts) != 1:
            raise SpError(
                f"The layers {', '.join(maps)} do not keep the images of a batch apart; ask for one at a time."
            )
        return [
            Probe(*({name: pieces[index] for name, pieces in part.items()} for part in (maps, before)))
            for index in range(counts.pop())
        ]


@dataclass(frozen=True)
class Objective:
    """A named number to raise.

    Attributes:
        name: as a person reads it.
        layers: the layers it looks at.
        value: probe to ``[n]``.
        channel: (layer, channel, before its ReLU) if the value is the mean of one channel. Many such objectives, each
            of its own pictures, are looked at in one go (:func:`together`).
    """

    name: str
    layers: frozenset[str]
    value: Callable[[Probe], Tensor]
    channel: tuple[str, int, bool] | None = None

    def __call__(self, probe: Probe) -> Tensor:
        """The objective of each image, ``[n]``."""
        return self.value(probe)

    def __add__(self, other: Objective) -> Objective:
        return Objective(f"{self.name} + {other.name}", self.layers | other.layers, lambda t: self(t) + other(t))

    def __sub__(self, other: Objective) -> Objective:
        name = f"({other.name})" if " " in other.name else other.name
        return Objective(f"{self.name} − {name}", self.layers | other.layers, lambda t: self(t) - other(t))

    def __mul__(self, factor: float) -> Objective:
        name = f"({self.name})" if " " in self.name else self.name
        return Objective(f"{factor:g} × {name}", self.layers, lambda t: factor * self(t))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return Objective(f"−({self.name})" if " " in self.name else f"−{self.name}", self.layers, lambda t: -self(t))


def channel(layer: str, index: int, before_relu: bool = False) -> Objective:
    """The mean of one channel over all positions (of a vector: the element)."""

    def value(probe: Probe) -> Tensor:
        values = _maps(probe, layer, before_relu)[:, index]
        return values.reshape(len(values), -1).mean(1)

    return Objective(f"{layer}:{index}", frozenset({layer}), value, (layer, index, before_relu))


def together(objectives: Sequence[Objective], copies: int) -> Callable[[Probe], Tensor] | None:
    """The values of ``copies`` pictures of each objective, one objective after another, where one look gives them.

    That is where all are means of channels of one layer: a map is then cut, and its gradient written, only once.
    """
    asked = [objective.channel for objective in objectives if objective.channel is not None]
    if len(asked) < len(objectives) or len({one[::2] for one in asked}) != 1:
        return None
    layer, _, before_relu = asked[0]
    rows = torch.arange(len(asked) * copies)
    channels = torch.tensor([one[1] for one in asked]).repeat_interleave(copies)

    def values(probe: Probe) -> Tensor:
        return _maps(probe, layer, before_relu)[rows, channels].reshape(len(rows), -1).mean(1)

    return values


def neuron(layer: str, index: int, position: tuple[int, int] | None = None, before_relu: bool = False) -> Objective:
    """One channel at one position ``(y, x)`` of the map; None is the centre, ``(h // 2, w // 2)``."""

    def value(probe: Probe) -> Tensor:
        plane = _maps(probe, layer, before_relu)[:, index]  # [n, h, w]
        if plane.ndim == 1:
            return plane
        y, x = position or (plane.shape[1] // 2, plane.shape[2] // 2)
        return plane[:, y, x]

    where = f"@{position[0]},{position[1]}" if position else " at the centre"
    return Objective(f"{layer}:{index}{where}", frozenset({layer}), value)


def class_logit(index: int, name: str | None = None, layer: str = OUTPUT) -> Objective:
    """The score of a class before the softmax (Simonyan et al. 2013: the probability can rise by lowering others)."""
    return Objective(name or f"class {index}", frozenset({layer}), lambda t: t(layer)[:, index])


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the space of a layer's channels: ``vector`` has one number a channel, any length but zero."""

    layer: str
    vector: Tensor
    name: str = ""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not torch.isfinite(self.vector).all() or not self.vector.any():
            raise SpError("A direction is a vector of finite numbers, one a channel, that are not all zero.")


def direction(target: Direction) -> Objective:
    """The mean over positions of the map's projection on a unit vector."""
    layer, name = target.layer, target.name or f"direction in {target.layer}"

    def value(probe: Probe) -> Tensor:
        maps = probe(layer).flatten(2) if probe(layer).ndim > 2 else probe(layer)[:, :, None]  # [n, c, positions]
        if maps.shape[1] != len(target.vector):
            raise SpError(f"{layer} has {maps.shape[1]} channels; the direction has {len(target.vector)} numbers.")
        unit = target.vector.to(maps) / target.vector.norm()
        return torch.einsum("ncp,c->n", maps, unit) / maps.shape[2]

    return Objective(name, frozenset({layer}), value)


def whole_layer(layer: str) -> Objective:
    """Half the mean square of a layer's output, whose gradient is the output itself: DeepDream's objective."""
    return Objective(layer, frozenset({layer}), lambda t: t(layer).flatten(1).square().mean(1) / 2)


def guided_by(layer: str, guide: Tensor) -> Objective:
    """The mean over positions of the product with the best matching feature of a guide picture.

    ``guide`` is the layer's output for the guide, ``[c, h, w]`` or ``[c]``. As in google/deepdream's notebook, which
    feature matches best is chosen by the largest dot product and is a constant for the gradient.
    """
    features = guide.detach().flatten(1) if guide.ndim > 1 else guide.detach()[:, None]  # [c, q]

    def value(probe: Probe) -> Tensor:
        maps = probe(layer).flatten(2) if probe(layer).ndim > 2 else probe(layer)[:, :, None]  # [n, c, p]
        total = maps.new_zeros(maps.shape[0])
        for piece in maps.split(_CHUNK, dim=2):
            best = torch.einsum("ncp,cq->npq", piece.detach(), features).argmax(2)  # [n, p]
            total = total + (piece * features[:, best].transpose(0, 1)).sum((1, 2))
        return total / maps.shape[2]

    return Objective(f"{layer} like the guide", frozenset({layer}), value)


def diversity(layer: str) -> Objective:
    """Minus the mean cosine between an image's Gram matrix and those of the other images: 0 is most different.

    The Gram matrix ``[c, c]`` of a layer says which channels fire together (Gatys et al. 2015). With one image it is 0.
    """

    def value(probe: Probe) -> Tensor:
        maps = probe(layer).flatten(2) if probe(layer).ndim > 2 else probe(layer)[:, :, None]
        count = maps.shape[0]
        if count == 1:
            return maps.new_zeros(1)
        gram = F.normalize(torch.einsum("ncp,ndp->ncd", maps, maps).flatten(1), dim=1)
        alike = gram @ gram.T  # [n, n]
        return -(alike.sum(1) - alike.diagonal()) / (count - 1)

    return Objective(f"diversity in {layer}", frozenset({layer}), value)


def diverse(objective: Objective, layer: str, weight: float) -> Objective:
    """``objective`` plus ``weight`` times the diversity of the images, in units of the objective's present value."""
    apart = diversity(layer)

    def value(probe: Probe) -> Tensor:
        own = objective(probe)
        return own + weight * own.detach().abs().mean() * apart(probe)

    return Objective(f"{objective.name}, diverse", objective.layers | apart.layers, value)


def _maps(probe: Probe, layer: str, before_relu: bool) -> Tensor:
    return probe.unrectified(layer) if before_relu else probe(layer)
