"""A trained network with some weights made symmetric, low rank or grouped: what the constraint costs untrained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from sp_core.network import Network
from sp_core.parameterizations import apply, entry, fold, free_parameters, parametrized


@dataclass(frozen=True)
class Constraint:
    """One constrained layer.

    Attributes:
        layer: its name.
        error: ``‖W − Ŵ‖_F / ‖W‖_F``: what of the weight cannot be written so; 0 where all can.
        kept: numbers that the weight needs now; before: its entries.
    """

    layer: str
    error: float
    kept: int
    before: int


@dataclass(frozen=True, eq=False)
class Constrained:
    """A network whose weights are the nearest that a parametrisation can write.

    Attributes:
        network: with dense weights, so that it can be asked anything; the one it was made of stays as it was.
        layers: in the order of the network.
        kept: numbers that the whole network needs; before: its parameters.
    """

    network: Network
    layers: tuple[Constraint, ...]
    kept: int
    before: int


def plain(net: Network) -> Network:
    """``net`` with dense weights in the place of parametrised ones; ``net`` itself where there are none.

    >>> from torch import nn
    >>> net = Network(apply(nn.Sequential(nn.Conv2d(4, 4, 3)), "average"), name="one", input_size=(4, 8, 8))
    >>> [name for name, _ in plain(net).module.named_parameters()]
    ['0.weight', '0.bias']
    """
    if not any(is_parametrized(part) for part in net.module.modules()):
        return net
    return replace(net, module=fold(net.module))


def constrained(net: Network, name: str, layers: Iterable[str] | None = None, **options: Any) -> Constrained:
    """``net`` with the weights of ``layers`` replaced by the nearest that the parametrisation ``name`` can write.

    ``name``, ``layers`` and ``options`` are those of :func:`sp_core.parameterizations.apply`; by default every
    convolution that can have it. Weights that are parametrised already are taken as the dense ones they make.

    Raises:
        SpError: the name, an option or a layer does not exist, or none can be parametrised so.

    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), name="two", input_size=(3, 8, 8))
    >>> made = constrained(net, "average")
    >>> [(row.layer, row.kept, row.before) for row in made.layers]
    [('1', 324, 576)]
    """
    net = plain(net)
    before = free_parameters(net.module)
    module = apply(net.clone(), name, layers, **options)
    parts = parametrized(module)
    kept = free_parameters(module)
    dense = fold(module)
    rows = []
    for layer, own in parts.items():
        was: Any = net.module.get_submodule(layer)
        now: Any = dense.get_submodule(layer)
        rows.append(Constraint(layer, _error(was.weight, now.weight), own.kept, was.weight.numel()))
    small = replace(net, module=dense, name=f"{net.name}, {name}", source=f"{net.source}, {entry(name).formula}")
    return Constrained(small, tuple(rows), kept, before)


def _error(was: Tensor, now: Tensor) -> float:
    norm = float(was.detach().double().norm())
    return float((was.detach().double() - now.detach().double()).norm()) / norm if norm > 0 else 0.0
