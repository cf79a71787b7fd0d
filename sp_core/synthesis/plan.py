"""From what a person asked for to what is done: objectives, one a picture, and the size of the pictures.

Nothing here computes an activation; a plan can be tested without tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.receptive_field import receptive_fields
from sp_core.synthesis import objectives as ask
from sp_core.synthesis.objectives import OUTPUT, Direction, Objective
from sp_core.synthesis.settings import AscentSettings
from sp_core.targets import parse_target
from sp_core.trace import input_dtype, private_copy

MAX_IMAGES = 64
SMALLEST = 32  # pixels: many networks have nothing left of less

Goal = int | str | Unit | Direction | Objective
_NORMALISED_OUTPUTS = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        objectives: one for each goal, to be raised (the sign is the settings').
        names: what each goal is called.
        peaks: layer and channel (None: the goal is no unit) whose largest value is reported.
        size: (h, w) of the pictures.
        before_relu: whether what went into ReLUs must be remembered.
    """

    objectives: tuple[Objective, ...]
    names: tuple[str, ...]
    peaks: tuple[tuple[str, int] | None, ...]
    size: tuple[int, int]
    before_relu: bool

    @property
    def layers(self) -> frozenset[str]:
        """The layers that all objectives together look at."""
        return frozenset[str]().union(*(objective.layers for objective in self.objectives))


def make_plan(
    net: Network, goals: Goal | Sequence[Goal], settings: AscentSettings, size: tuple[int, int] | None = None
) -> Plan:
    """Check everything that can be checked before the first step. ``size`` (h, w) overrules that of the settings.

    Raises:
        SpError: a goal does not exist, there are too many, or the network does not run at the size asked for.
    """
    items: list[Any] = list(goals) if isinstance(goals, (list, tuple)) else [goals]
    count = len(items) * settings.copies
    if not 1 <= count <= MAX_IMAGES:
        raise SpError(f"Between 1 and {MAX_IMAGES} pictures are made at once; got {count}. Ask for fewer at a time.")
    read = [_read(net, item, settings) for item in items]
    chosen, peaks = tuple(row[0] for row in read), tuple(row[1] for row in read)
    layers = frozenset[str]().union(*(objective.layers for objective in chosen))
    size = _size(net, layers, items, settings.size, size)
    names = tuple(objective.name for objective in chosen)
    if settings.copies > 1 and settings.diversity > 0:
        chosen = tuple(ask.diverse(one, sorted(one.layers)[0], settings.diversity) for one in chosen)
    single = any("@" in name or name.endswith(" at the centre") for name in names)
    return Plan(chosen, names, peaks, size, before_relu=settings.sign < 0 or single)


def _read(net: Network, goal: Any, settings: AscentSettings) -> tuple[Objective, tuple[str, int] | None]:
    if isinstance(goal, Objective):
        return _checked(net, goal), None
    if isinstance(goal, Direction):
        return _checked(net, ask.direction(goal)), None
    if isinstance(goal, str):
        goal = parse_target(net, goal)
    if isinstance(goal, Unit):
        shape = net.check(goal).output_shape
        peak = (goal.layer, goal.channel)
        # Below 0 there is nothing to see after a ReLU, and one position has no gradient where the ReLU is shut.
        if goal.position is None and (settings.position == "channel" or len(shape) != 3):
            return ask.channel(*peak, before_relu=settings.sign < 0), peak
        return ask.neuron(*peak, goal.position, before_relu=True), peak
    if isinstance(goal, bool) or not hasattr(goal, "__index__"):
        raise SpError(f"A goal is a class number, a unit such as 'layer4:20' or a direction; got {goal!r}.")
    index = net.check_class(int(goal))
    layer = logit_layer(net)
    name = net.class_name(index)
    name = name if name.startswith("class ") else f"class {index} ({name})"
    return ask.class_logit(index, name, layer), (layer, index)


def _checked(net: Network, objective: Objective) -> Objective:
    for layer in objective.layers - {OUTPUT}:
        net.layer(layer)
    return objective


def logit_layer(net: Network) -> str:
    """The layer of the class scores before the softmax; ``""``, the whole network's output, where it has no softmax."""
    last = net.layers[-1]
    leaves = [layer for layer in net.layers if layer.leaf]
    if last.kind not in _NORMALISED_OUTPUTS and leaves[-1].kind not in _NORMALISED_OUTPUTS:
        return OUTPUT
    before = [layer for layer in leaves if layer.kind not in _NORMALISED_OUTPUTS]
    same = [layer.name for layer in before if layer.output_shape == leaves[-1].output_shape]
    return same[-1] if same else OUTPUT


# --- the size of the pictures -----------------------------------------------------------------------------------------


def _size(
    net: Network,
    layers: frozenset[str],
    goals: Sequence[Any],
    shorter: int | None,
    given: tuple[int, int] | None,
) -> tuple[int, int]:
    """The picture's height and width: as asked for, or what the units can see, with a margin."""
    h, w = net.input_size[1:]
    if given is None and shorter is not None:
        given = (round(h * shorter / min(h, w)), round(w * shorter / min(h, w)))
    if given is not None:
        shapes = runs_at(net, layers, given)
        if shapes is None:
            shown = ", ".join(sorted(layer or "the class scores" for layer in layers))
            raise SpError(
                f"{net.name} does not run on {given[0]}×{given[1]} pixels up to {shown}; "
                f"its own input is {h}×{w}: leave the size out to use what suits it."
            )
        _positions_fit(goals, shapes, given)
        return given
    placed = any(getattr(_unit(goal), "position", None) for goal in goals)
    side = None if placed or OUTPUT in layers else _seen(net, layers)
    if side is None or side >= min(h, w):
        return h, w
    return (side, side) if runs_at(net, layers, (side, side)) is not None else (h, w)


def _unit(goal: Any) -> Any:
    return Unit.parse(goal) if isinstance(goal, str) and ":" in goal else goal


def _positions_fit(goals: Sequence[Any], shapes: dict[str, tuple[int, ...]], size: tuple[int, int]) -> None:
    for unit in map(_unit, goals):
        position = getattr(unit, "position", None)
        if position is None:
            continue
        h, w = shapes[unit.layer][1:]
        if position[0] >= h or position[1] >= w:
            raise SpError(
                f"On {size[0]}×{size[1]} pixels layer {unit.layer} has positions 0,0 to {h - 1},{w - 1}; got "
                f"{position[0]},{position[1]}. Leave the size out to use the network's own."
            )


def _seen(net: Network, layers: Iterable[str]) -> int | None:
    """The side of the largest receptive field of ``layers`` with a margin, in whole eights; None where unknown."""
    try:
        fields = receptive_fields(net)
        sides = [max(_sides(fields[layer].size)) for layer in layers]
    except (KeyError, RuntimeError, SpError):  # a field that cannot be found only means a larger picture
        return None
    largest = max(sides)
    if min(sides) < 1:  # unavailable
        return None
    margin = max(8, largest // 4)  # room for the shift, and for a few neighbours of the unit
    return max(SMALLEST, -(-(largest + margin) // 8) * 8)


def _sides(size: Any) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, (tuple, list)) else (int(size),)


def runs_at(net: Network, layers: Iterable[str], size: tuple[int, int]) -> dict[str, tuple[int, ...]] | None:
    """The output shapes of ``layers`` on pictures of ``size`` (h, w); None where the network cannot run on them."""
    shape = (1, net.input_size[0], *size)
    dtype = input_dtype(net.module)
    meta = partial(private_copy, net.module, to="meta")
    for copy_of, device in ((meta, torch.device("meta")), (net.clone, net.device)):
        try:
            with torch.no_grad():
                maps = capture(copy_of(), torch.zeros(shape, device=device, dtype=dtype), layers)
        except Exception:  # noqa: BLE001 - a network may fail in any way; that it fails is the answer
            continue
        if all(min(map_.shape) > 0 for map_ in maps.values()):
            return {name: tuple(map_.shape[1:]) for name, map_ in maps.items()}
    return None
