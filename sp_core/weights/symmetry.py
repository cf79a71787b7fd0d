"""Symmetries of trained weights, and the ways to write a weight that is symmetric.

Hu, Zagoruyko and Komodakis 2018 ("Exploring weight symmetry in deep neural networks", arXiv:1812.11027) constrain
square convolutions to symmetric ones. Here the constraint becomes a measurement: a symmetry is a group of permutations
of a weight's entries, the mean over the group projects a weight on the symmetric ones, and the *symmetry energy* is the
share ``‖projection‖² / ‖W‖²``: 1 is symmetric, and a random weight has ``rank of the projection / entries``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations.folding import fold
from sp_core.parameterizations.symmetric import average, eigen, ldl, triangular
from sp_core.weights.matrices import Weight, matrices

__all__ = [
    "KINDS", "Symmetry", "average", "eigen", "ldl", "obstacle", "project", "projected", "rank_share", "symmetries",
    "symmetry", "triangular",
]  # fmt: skip

_Element = Callable[[Tensor], Tensor]


def _same(weight: Tensor) -> Tensor:
    return weight


def _turn(times: int) -> _Element:
    return lambda weight: weight.rot90(times, (-2, -1))


_FLIPS: tuple[_Element, ...] = (lambda w: w.flip(-1), lambda w: w.flip(-2), lambda w: w.mT, lambda w: w.flip(-1, -2).mT)
# Kind to the elements of its group; the first is always the identity.
KINDS: dict[str, tuple[_Element, ...]] = {
    "channels": (_same, lambda w: w.transpose(0, 1)),
    "left–right": (_same, _FLIPS[0]),
    "up–down": (_same, _FLIPS[1]),
    "transpose": (_same, _FLIPS[2]),
    "half turn": (_same, _turn(2)),
    "quarter turns": (_same, _turn(1), _turn(2), _turn(3)),
    "all eight": (_same, _turn(1), _turn(2), _turn(3), *_FLIPS),
}
_SQUARE_KERNEL = {"transpose", "quarter turns", "all eight"}


@dataclass(frozen=True)
class Symmetry:
    """One symmetry of one weight.

    Attributes:
        layer: the layer's name.
        kind: one of :data:`KINDS`: ``"channels"`` compares every kernel position's ``[out, in]`` matrix with its
            transpose; the others are about each k×k kernel: mirrored left–right or up–down, transposed, turned by
            180°, by multiples of 90°, and all eight of these motions together.
        energy: ``‖projection‖² / ‖W‖²`` in [0, 1]; NaN where there is none.
        expected: mean of a random Gaussian weight, ``rank / entries``.
        low, high: two standard deviations below and above that mean (the share is Beta distributed), within [0, 1].
        reason: why there is no number, or None.
    """

    layer: str
    kind: str
    energy: float
    expected: float
    low: float
    high: float
    reason: str | None = None


def obstacle(row: Weight, kind: str) -> str | None:
    """Why ``kind`` makes no sense for this weight; None when it does."""
    if kind not in KINDS:
        raise SpError(f"A symmetry is one of {', '.join(KINDS)}; got '{kind}'.")
    out, inputs, *kernel = row.tensor.shape
    if kind == "channels":
        if row.groups != 1:
            return f"it has {row.groups} groups"
        return None if out == inputs else f"{out}×{inputs} channels are not square"
    if len(kernel) != 2 or math.prod(kernel) == 1:
        return "it has no k×k kernels"
    if kind in _SQUARE_KERNEL and kernel[0] != kernel[1]:
        return f"kernels of {kernel[0]}×{kernel[1]} are not square"
    return None


def project(weight: Tensor, kind: str) -> Tensor:
    """The nearest weight with the symmetry: the mean over its group. Idempotent, and shorter than ``weight``.

    ``weight`` is ``[out, in]`` or ``[out, in, k, k]``, as the kind needs it.

    >>> project(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), "channels").tolist()
    [[1.0, 3.0], [3.0, 3.0]]
    """
    return torch.stack([element(weight) for element in KINDS[kind]]).mean(0)


def rank_share(shape: tuple[int, ...], kind: str) -> float:
    """Rank of the projection over the number of entries: the trace counts the entries each element leaves in place."""
    if kind == "channels":
        return (shape[0] + 1) / (2 * shape[0])
    places = torch.arange(math.prod(shape[2:])).view(*shape[2:])
    fixed = [float((element(places) == places).sum()) for element in KINDS[kind]]
    return sum(fixed) / len(fixed) / places.numel()


def symmetry(row: Weight, kind: str) -> Symmetry:
    """How much of ``row`` has the symmetry; see :class:`Symmetry`.

    >>> symmetry(Weight("a.weight", "a", "Conv2d", torch.ones(2, 2, 3, 3)), "all eight").energy
    1.0
    """
    reason = obstacle(row, kind)
    weight = row.tensor.detach().double()
    energy = float(weight.square().sum())
    if reason is None and not 0 < energy < math.inf:
        reason = "its weights are all zero" if energy == 0 else "its weights are not finite"
    if reason is not None:
        return Symmetry(row.layer, kind, math.nan, math.nan, math.nan, math.nan, reason)
    mean = rank_share(tuple(weight.shape), kind)
    spread = 2 * math.sqrt(mean * (1 - mean) / (weight.numel() / 2 + 1))
    share = float(project(weight, kind).square().sum()) / energy
    return Symmetry(row.layer, kind, min(share, 1.0), mean, max(0.0, mean - spread), min(1.0, mean + spread))


def symmetries(net: Network) -> tuple[Symmetry, ...]:
    """Every symmetry of every weight of the network, layer by layer, the ones that make no sense with their reason."""
    return tuple(symmetry(row, kind) for row in matrices(net) for kind in KINDS)


def projected(net: Network, kind: str, layers: Iterable[str] | None = None) -> Network:
    """``net`` with the weights of ``layers`` replaced by the nearest that have the symmetry, all else as it was.

    By default every layer that can have it. Parametrised weights become plain ones; ``net`` stays as it is.

    Raises:
        SpError: the kind or a layer does not exist, a layer cannot have it, or none can.

    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), name="two", input_size=(3, 8, 8))
    >>> [row.energy for row in symmetries(projected(net, "channels")) if (row.layer, row.kind) == ("1", "channels")]
    [1.0]
    """
    why = {row.layer: obstacle(row, kind) for row in matrices(net)}
    wanted = [layer for layer, reason in why.items() if reason is None] if layers is None else list(layers)
    for layer in wanted:
        if layer not in why:
            raise SpError(
                f"'{layer}' is not one of the weights of {net.name}; the first are {', '.join(list(why)[:5])}."
            )
        if why[layer] is not None:
            raise SpError(f"{layer} cannot have the symmetry “{kind}”: {why[layer]}.")
    if not wanted:
        first = next(iter(why))
        raise SpError(f"No weight of {net.name} can have the symmetry “{kind}”: {first}, for one: {why[first]}.")
    small = replace(net, module=fold(net.module), name=f"{net.name}, {kind}", source=f"{net.source}, {kind}")
    with torch.no_grad():
        for row in matrices(small):  # its tensors are views of the copy's weights
            if row.layer in wanted:
                row.tensor.copy_(project(row.tensor, kind))
    return small
