"""The weight matrices of a network: every convolution and linear layer, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLES = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.RMSNorm,
)  # rows looked up, or scales: no matrix that multiplies


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a network.

    Attributes:
        name: ``"conv1.weight"``.
        layer: the module's path, ``"conv1"``.
        kind: the module's class, ``"Conv2d"``.
        tensor: ``[out, in / groups, …kernel]`` of a convolution (of a transposed one too: its first two axes are
            swapped), ``[out, in]`` of a linear layer. Shares the memory of the network; not to be changed.
        groups: how many groups the channels are divided into; 1 for a linear layer.
        runs: whether the layer runs in evaluation (an auxiliary head does not).
    """

    name: str
    layer: str
    kind: str
    tensor: Tensor
    groups: int = 1
    runs: bool = True

    @property
    def matrix(self) -> Tensor:
        """The weight as a matrix ``[out, in / groups · kernel]``."""
        return self.tensor.flatten(1)


def weights(net: Network) -> tuple[Weight, ...]:
    """Every weight of two or more axes, in execution order; those of layers that do not run come last.

    Of layers that share one weight the first has it.

    Raises:
        SpError: there is none.

    >>> [w.name for w in weights(Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8)))]
    ['0.weight']
    """
    try:
        running = list(dict.fromkeys(layer.module for layer in net.layers))
    except SpError:  # weights can be looked at even where the network cannot run
        running = []
    found: list[Weight] = []
    seen: set[int] = set()
    ran = set(running)
    rest = [name for name, _ in net.module.named_modules() if name not in ran]
    for path in [*running, *rest]:
        module = net.module.get_submodule(path)
        tensor = _weight(module)
        if tensor is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        groups = int(getattr(module, "groups", 1))
        if isinstance(module, _TRANSPOSED):
            tensor = tensor.transpose(0, 1)
        name = f"{path}.weight" if path else "weight"
        found.append(Weight(name, path, type(module).__name__, tensor, groups, not running or path in ran))
    if not found:
        raise SpError(f"{net.name} has no convolution and no linear layer, so it has no weight matrix.")
    return tuple(found)


def _weight(module: nn.Module) -> Tensor | None:
    """The module's weight when it is a matrix or more; a parametrised one is computed from its parts."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, _TABLES) or not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    if not weight.is_floating_point() or not weight.numel() or isinstance(weight, nn.parameter.UninitializedParameter):
        return None
    with torch.no_grad():
        return weight.detach() if not isinstance(weight, nn.Parameter) else weight


def find(net: Network, name: str) -> Weight:
    """The weight called ``name``, with or without ``".weight"``; raises SpError naming the first ones."""
    rows = weights(net)
    for row in rows:
        if name in {row.name, row.layer}:
            return row
    some = ", ".join(row.layer for row in rows[:6])
    raise SpError(f"'{name}' is not one of the {len(rows)} weights of {net.name}; the first are {some}.")
