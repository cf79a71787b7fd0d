"""Which pixels a unit can see: size, stride and place of the receptive field of every layer.

The boxes come from :mod:`sp_core.shadows`, which follows the network as it really runs: branches, concatenations,
channel splits, dilation, ``ceil_mode``, resizing and padding included. One pass on the network's own input size gives
each unit's box as the image clips it; a second on a much larger image, where the units in the middle are not clipped,
gives the theoretical size, stride and start. Both run without arithmetic.

Sources: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill (size,
stride and start; equations 2, 5 and 6 are what a plain chain comes to).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.shadows.field import Box, Extent, ReceptiveField, pair
from sp_core.shadows.shadow import EMPTY, Shadow
from sp_core.shadows.survey import Survey, survey

__all__ = [
    "Box",
    "Extent",
    "Nested",
    "ReceptiveField",
    "UnitField",
    "blind_layers",
    "clipped_boxes",
    "field_of",
    "nest",
    "pair",
    "receptive_fields",
]

Gates = Literal["local", "strict"]


@dataclass(frozen=True)
class UnitField:
    """The receptive field of one unit.

    Attributes:
        clipped: the pixels of the image that it sees, exactly; empty where it sees padding only.
        unclipped: its field by the layer's law, which may reach outside the image; the same as ``clipped`` where the
            unit sees the whole image.
        exact: whether ``unclipped`` is exact (the layer's status is not ``"partial"``).
    """

    clipped: Box
    unclipped: Box
    exact: bool = True


_FOUND: WeakKeyDictionary[Network, dict[str, Survey]] = WeakKeyDictionary()


def receptive_fields(net: Network, gates: Gates = "local") -> dict[str, ReceptiveField]:
    """The receptive field of every layer of ``net``, by name, in execution order.

    Args:
        net: the network.
        gates: squeeze-and-excitation multiplies every channel by a number computed from the whole map, and group
            normalisation divides by a statistic of it. ``"local"`` holds such factors constant and tells where a unit
            looks; ``"strict"`` counts them, so that behind the first one everything sees the whole image.

    >>> conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7, 2, 3), torch.nn.MaxPool2d(3, 2, 1))
    >>> fields = receptive_fields(Network(conv, input_size=(3, 32, 32)))
    >>> fields["1"].size, fields["1"].stride, fields["1"].start
    (11, 4, -5)
    """
    return dict(_found(net, gates).fields)


def field_of(net: Network, unit: Unit | str, gates: Gates = "local") -> UnitField:
    """The field of one unit: of ``unit.position``, or of the middle of the map when it has none.

    Cheap after the first call for a network: the boxes of all its units are kept.

    Raises:
        SpError: the unit does not exist.
    """
    unit = Unit.parse(unit) if isinstance(unit, str) else unit
    layer = net.check(unit)
    found = _found(net, gates)
    rf = found.fields[layer.name]
    y, x = unit.position or tuple(side // 2 for side in layer.output_shape[1:3]) or (0, 0)
    at = (unit.channel, y, x)[: len(layer.output_shape)]
    grid = found.grids.get(layer.name)
    clipped = Box(0, 0, 0, 0) if grid is None else _box_at(grid, at)
    if rf.status in {"whole image", "unavailable"} or not layer.is_map:
        return UnitField(clipped, clipped)
    return UnitField(clipped, rf.box(y, x, unit.channel), rf.status == "complete")


def clipped_boxes(net: Network, layer: str, gates: Gates = "local") -> Tensor:
    """The clipped boxes of all units of a layer: int32 ``[4, …]`` with y0, y1, x0, x1 as in :class:`Box`.

    The further dimensions are those of the layer's output, with size 1 along each in which no box changes, so that
    indexing needs ``min(index, size - 1)`` or ``expand``. A unit that sees nothing has four zeros.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), input_size=(3, 8, 8))
    >>> clipped_boxes(net, "0").shape
    torch.Size([4, 1, 6, 6])
    """
    name = net.layer(layer).name
    grid = _found(net, gates).grids.get(name)
    if grid is None:
        raise SpError(f"Layer {name} does not depend on the image, so its units have no receptive field.")
    y0, y1, x0, x1 = torch.broadcast_tensors(*grid.parts)
    boxes = torch.stack([y0, 1 - y1, x0, 1 - x1])
    return boxes.masked_fill(torch.stack([y0, y1, x0, x1]).eq(EMPTY).any(0), 0)


def blind_layers(net: Network) -> frozenset[str]:
    """The layers that are the same for every image: they follow parameters or constants only.

    >>> class Placed(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.see, self.place = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(1, 4, 3)
    ...
    ...     def forward(self, image):
    ...         return self.see(image) + self.place(torch.ones(1, 1, 8, 8))
    >>> sorted(blind_layers(Network(Placed(), input_size=(3, 8, 8))))
    ['place']
    """
    return frozenset(layer.name for layer in net.layers) - _found(net, "local").grids.keys()


def _box_at(grid: Shadow, at: tuple[int, ...]) -> Box:
    values = []
    for part in grid.parts:
        index = tuple(min(k, size - 1) for k, size in zip(at, part.shape, strict=True))
        values.append(int(part[index]))
    if EMPTY in values:
        return Box(0, 0, 0, 0)
    return Box(values[0], 1 - values[1], values[2], 1 - values[3])


def _found(net: Network, gates: Gates) -> Survey:
    if gates not in {"local", "strict"}:
        raise SpError(f"`gates` must be 'local' or 'strict'; got '{gates}'.")
    kept = _FOUND.setdefault(net, {})
    if gates not in kept:
        kept[gates] = survey(net, gates == "local")
    return kept[gates]


@dataclass(frozen=True)
class Nested:
    """One layer on the way to a unit, and the unit of it that looks at the same place.

    Attributes:
        layer: its name.
        position: (y, x) of the unit whose field has its centre nearest to the centre of the last one's.
        field: that unit's receptive field.
        size: of the layer's field, as in :class:`ReceptiveField`.
        whole: whether it sees the whole image.
    """

    layer: str
    position: tuple[int, int]
    field: UnitField
    size: Extent
    whole: bool


def nest(net: Network, layer: str, position: tuple[int, int] | None = None, gates: Gates = "local") -> list[Nested]:
    """The fields around one place, from the first layer to ``layer``: one for each layer in which the field grows.

    ``position`` is a unit of ``layer``; by default the one in the middle. Layers whose field is the same as that of
    the one before (activations, 1×1 convolutions) are left out, except ``layer`` itself.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3)))
    >>> [(step.layer, step.field.clipped.height) for step in nest(net, "2")]
    [('0', 3), ('2', 5)]
    """
    last = net.layer_with_units(layer)
    if not last.is_map:
        raise SpError(f"Layer {layer} is a vector, which has no positions; choose a layer before it.")
    fields = receptive_fields(net, gates)
    y, x = position or (last.output_shape[1] // 2, last.output_shape[2] // 2)
    net.check(Unit(layer, 0, (y, x)))
    end = fields[layer]
    centre = _centre(end, (y, x)) if end.status != "whole image" else tuple((s - 1) / 2 for s in net.input_size[1:])
    steps: list[Nested] = []
    for candidate in net.layers:
        rf = fields[candidate.name]
        if not candidate.is_map or rf.status == "unavailable":
            continue
        at = (y, x) if candidate.name == layer else _nearest(rf, centre, candidate.output_shape)  # type: ignore[arg-type]
        unit = Unit(candidate.name, _widest(rf), at)
        step = Nested(candidate.name, at, field_of(net, unit, gates), rf.size, rf.status == "whole image")
        if candidate.name == layer:
            same = bool(steps) and steps[-1].field == step.field
            return [*steps[: len(steps) - same], step]
        if candidate.leaf and (not steps or pair(rf.size) != pair(steps[-1].size)):
            steps.append(step)
    return steps


def _centre(rf: ReceptiveField, at: tuple[int, int]) -> tuple[float, ...]:
    every = zip(pair(rf.start), pair(rf.stride), pair(rf.size), at, strict=True)
    return tuple(start + u * stride + (size - 1) / 2 for start, stride, size, u in every)


def _nearest(rf: ReceptiveField, centre: tuple[float, float], shape: tuple[int, ...]) -> tuple[int, int]:
    found = []
    for axis in (0, 1):
        start, stride, size = pair(rf.start)[axis], pair(rf.stride)[axis], pair(rf.size)[axis]
        u = (centre[axis] - start - (size - 1) / 2) / stride if stride else 0
        found.append(min(max(round(u), 0), shape[1 + axis] - 1))
    return found[0], found[1]


def _widest(rf: ReceptiveField) -> int:
    """A channel that sees as much as any."""
    if rf.per_channel is None:
        return 0
    return max(range(len(rf.per_channel)), key=lambda c: pair(rf.per_channel[c])[0] * pair(rf.per_channel[c])[1])  # type: ignore[index]
