"""Can a map be trusted? Two tests: take away what it calls important, and randomise what the network has learnt.

Insertion and deletion (Petsiuk, Das and Saenko 2018, section 4.2): pixels are revealed on a blurred image, or blanked
on the true one, from the most important on; the area under the curve of the target's value is the score.
Weight randomisation (Adebayo et al. 2018): a map that hardly changes when the weights are shuffled shows the image's
edges, not what the network has learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.attribution import Attribution, attribute, importance
from sp_core.errors import SpError
from sp_core.methods import blurred
from sp_core.network import Network, Unit, predict
from sp_core.targets import Aim, Target, read_target, values
from sp_core.trace import private_copy

BATCH = 16
TRIES = 8


@dataclass(frozen=True)
class Curves:
    """What becomes of the target while pixels are revealed or blanked, by a map's order and in random order.

    Attributes:
        fraction: ``[steps + 1]``, the share of pixels revealed or blanked, 0 to 1.
        insertion, deletion: ``[steps + 1]``, the target: a class's probability, or a unit's activation divided by its
            activation on the whole image.
        random_insertion, random_deletion: the same with the pixels in a random order.
        insertion_score, deletion_score: area under the curve (trapezoid). Good maps: high insertion, low deletion.
        random_insertion_score, random_deletion_score: of the random order; a map must beat it to mean anything.
        unit: ``"probability"`` or ``"share of the activation"``.
    """

    fraction: Tensor
    insertion: Tensor
    deletion: Tensor
    random_insertion: Tensor
    random_deletion: Tensor
    insertion_score: float
    deletion_score: float
    random_insertion_score: float
    random_deletion_score: float
    unit: str


@dataclass(frozen=True)
class Step:
    """Progress: ``done`` of ``total`` parts; ``curves`` is None before the last."""

    done: int
    total: int
    curves: Curves | None = None


@dataclass(frozen=True)
class Randomised:
    """The same method on the same image after weights were shuffled.

    Attributes:
        which: ``"last"`` (the last layer with weights before the target) or ``"all"``.
        tensors: how many weight tensors were shuffled.
        seed: of the shuffle: the one asked for, or the first after it for which the target is not switched off.
        attribution: the new map, for the same class or unit.
        correlation: Spearman's rank correlation of the pixels' importance, before and after; NaN when one of the
            maps is constant. Near 1: the map does not depend on what those weights have learnt.
    """

    which: str
    tensors: int
    seed: int
    attribution: Attribution
    correlation: float


def insertion_deletion(
    net: Network, image: Tensor, target: Target, ranking: Tensor, steps: int = 24, seed: int = 0
) -> Curves:
    """Insertion and deletion curves of one image; the last record of :func:`insertion_deletion_steps`."""
    *_, last = insertion_deletion_steps(net, image, target, ranking, steps, seed)
    assert last.curves is not None
    return last.curves


def insertion_deletion_steps(
    net: Network, image: Tensor, target: Target, ranking: Tensor, steps: int = 24, seed: int = 0
) -> Iterator[Step]:
    """Insertion and deletion, batch by batch.

    Args:
        net: the network; it is left as it was found.
        image: ``[1, c, h, w]`` or ``[c, h, w]`` in [0, 1].
        target: a class (its probability is followed) or a unit (its activation, at the position found on the image).
        ranking: ``[h, w]`` or ``[1, h, w]``, larger is more important; ties are broken at random.
        steps: how many equal portions of pixels, at least 2. The paper uses one row of pixels a step.
        seed: of the random order.

    Blanked pixels have the network's mean colour (zero after normalisation); insertion starts from the image blurred
    with a Gaussian of σ = 5 pixels at 224, in proportion at other sizes (the paper's choices).
    """
    image = net.check_images(image)[:1].detach()
    height, width = image.shape[2:]
    flat = ranking.detach().reshape(-1).cpu().double()
    if flat.numel() != height * width:
        raise SpError(f"The map must have one number a pixel, {height}×{width}; got {list(ranking.shape)}.")
    if not bool(flat.isfinite().all()):
        raise SpError("The map has values that are not finite, so its pixels have no order.")
    if not 2 <= steps <= height * width:
        raise SpError(f"`steps` must be from 2 to the number of pixels ({height * width}); got {steps}.")
    follow, unit = _follower(net, image, target)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(flat.numel(), generator=generator)
    by_chance = chance.argsort()
    by_map = by_chance[flat[by_chance].argsort(descending=True, stable=True)]  # equal values stay in random order
    blank = torch.tensor(net.mean or (0.5,) * image.shape[1]).to(image).view(1, -1, 1, 1).expand_as(image)
    soft = blurred(image)
    plan = [(by_map, soft, image), (by_map, image, blank), (by_chance, soft, image), (by_chance, image, blank)]
    curves: list[Tensor] = []
    for number, (order, start, end) in enumerate(plan):
        parts = []
        for first in range(0, steps + 1, BATCH):
            counts = range(first, min(first + BATCH, steps + 1))
            shares = [round(flat.numel() * count / steps) for count in counts]
            parts.append(follow(torch.cat([_mixed(start, end, order[:share]) for share in shares])))
            yield Step(number * (steps + 1) + counts.stop, len(plan) * (steps + 1))
        curves.append(torch.cat(parts))
    fraction = torch.arange(steps + 1) / steps
    total = len(plan) * (steps + 1)
    areas = [_area(curve) for curve in curves]
    one, two, three, four = curves
    found = Curves(fraction, one, two, three, four, areas[0], areas[1], areas[2], areas[3], unit)
    yield Step(total, total, found)


def _area(curve: Tensor) -> float:
    """Area under ``curve`` over [0, 1] by the trapezoid rule."""
    return float((curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1))


def _mixed(start: Tensor, end: Tensor, pixels: Tensor) -> Tensor:
    """``start`` with ``pixels`` (flat indices) taken from ``end``."""
    mask = torch.zeros(start.shape[2] * start.shape[3], dtype=torch.bool)
    mask[pixels] = True
    return torch.where(mask.view(1, 1, *start.shape[2:]).to(start.device), end, start)


def _follower(net: Network, image: Tensor, target: Target) -> tuple[Any, str]:
    aim = read_target(net, target, 1)
    with torch.no_grad():
        value, aim = values(net, image, aim)
    if aim.layer is None:
        return lambda batch: _probability(net, batch, aim), "probability"
    if not float(value) > 0:
        raise SpError(
            f"{aim.names(net)[0]} is {float(value):.3g} on this image; insertion and deletion need a positive value."
        )

    def share(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return (values(net, batch, aim.times(len(batch)))[0] / value).double().cpu()

    return share, "share of the activation"


def _probability(net: Network, batch: Tensor, aim: Aim) -> Tensor:
    return predict(net, batch).double().softmax(1)[:, aim.channels[0]].cpu()


def randomise(net: Network, which: str = "all", seed: int = 0, before: str | None = None) -> tuple[Network, int]:
    """A copy of ``net`` with the entries of its weights shuffled, and how many tensors were shuffled.

    Each tensor keeps its values and so its scale; what is lost is their arrangement. Running statistics stay.

    Args:
        net: stays as it is.
        which: ``"all"`` weights, or those of the ``"last"`` layer with weights.
        seed: of the shuffle.
        before: only layers that run up to this one count (for a unit of a layer in the middle).
    """
    if which not in {"last", "all"}:
        raise SpError(f"`which` must be 'last' or 'all'; got '{which}'.")
    groups = _weights_in_order(net, before)
    weighted = [tensors for tensors in groups if any(tensor.ndim > 1 for tensor in tensors)]
    if not weighted:
        raise SpError(f"{net.name} has no weights before the target that could be randomised.")
    generator = torch.Generator().manual_seed(seed)
    memo: dict[int, Any] = {}
    for tensor in (tensor for tensors in (groups if which == "all" else weighted[-1:]) for tensor in tensors):
        if id(tensor) not in memo:
            at = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            memo[id(tensor)] = nn.Parameter(tensor.detach().reshape(-1)[at].view(tensor.shape), requires_grad=False)
    count = len(memo)  # before the copy adds the rest
    return replace(net, module=private_copy(net.module, memo=memo), name=f"{net.name} ({which} shuffled)"), count


def _weights_in_order(net: Network, before: str | None) -> list[list[Tensor]]:
    """Parameters by the layer that they belong to (a parametrised layer's lie below it), in execution order."""
    names = [layer.name for layer in net.layers]
    ran = [layer.module for layer in net.layers][: names.index(net.layer(before).name) + 1 if before else None]
    groups: dict[str, list[Tensor]] = {name: [] for name in ran}
    for name, tensor in net.module.named_parameters():
        owner = name
        while owner and owner not in groups:
            owner = owner.rpartition(".")[0]
        if owner:
            groups[owner].append(tensor)
    return [tensors for tensors in groups.values() if tensors]


def randomisation(
    net: Network, image: Tensor, target: Target, original: Attribution, which: str, seed: int = 0
) -> Randomised:
    """``original``'s method and settings on the network with ``which`` weights shuffled, compared by rank.

    ``image`` is ``[1, c, h, w]``, the one ``original`` was made for. The class or unit stays the same; a unit without a
    position keeps the position that was found on the image before.
    """
    aim = read_target(net, target, 1)
    with torch.no_grad():
        aim = values(net, net.check_images(image)[:1], aim)[1]

    kept: Target = aim.channels[0] if aim.layer is None else Unit(aim.layer, aim.channels[0], aim.positions[0])
    for number in range(seed, seed + TRIES):
        other, count = randomise(net, which, number, aim.layer)
        found = attribute(other, image, kept, original.method, **dict(original.settings))
        if float(found.values[0]) != 0:  # a target that is switched off has no map; the next seed is as good
            break
    correlation = rank_correlation(importance(original)[0], importance(found)[0])
    return Randomised(which, count, number, found, correlation)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps of one size, ties with their mean rank; NaN when one is constant.

    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 15.0])), 6)
    0.5
    """
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    spread = float(first.norm() * second.norm())
    return float(first @ second) / spread if spread > 0 else float("nan")


def _ranks(values: Tensor) -> Tensor:
    """Mean ranks from 0, float64; all NaN where a value is not finite."""
    flat = values.detach().reshape(-1).double().cpu()
    if not bool(flat.isfinite().all()):
        return torch.full_like(flat, float("nan"))
    _, group, size = flat.unique(return_inverse=True, return_counts=True)
    last = size.cumsum(0).double() - 1
    return (last - (size.double() - 1) / 2)[group]
