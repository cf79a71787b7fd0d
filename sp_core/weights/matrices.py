"""The weight matrices of a network: every convolution and linear layer, in the order in which they run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights.stacked import blocks

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLES = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.RMSNorm,
)  # rows looked up, or scales: no matrix that multiplies
# What people call a table of embeddings; where only the weights are known, only its name tells it from a linear layer.
_EMBEDDING = re.compile(r"(.*[._])?(\w*embeddings?|emb|embed|w[tp]e|vocab\w*)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a network.

    Attributes:
        name: ``"conv1.weight"``.
        layer: the module's path, ``"conv1"``.
        kind: the module's class, ``"Conv2d"``.
        tensor: ``[out, in / groups, …kernel]`` of a convolution (of a transposed one too: its first two axes are
            swapped), ``[out, in]`` of a linear layer. Shares the memory of the network; not to be changed.
        groups: how many groups the channels are divided into; 1 for a linear layer, and where only weights are known.
        runs: whether the layer runs in evaluation (an auxiliary head does not).
        part: of a matrix that is stacked with others in one tensor, what it does (``"forget gate, from the state"``);
            its name then has the gate in brackets, ``"lstm.weight_hh_l0[f]"``, and its layer is ``"lstm.hh_l0[f]"``.
    """

    name: str
    layer: str
    kind: str
    tensor: Tensor
    groups: int = 1
    runs: bool = True
    part: str | None = None

    @property
    def matrix(self) -> Tensor:
        """The weight as a matrix ``[out, in / groups · kernel]``."""
        return self.tensor.flatten(1)


def weights(net: Network) -> tuple[Weight, ...]:
    """Every layer's weight of two or more axes, in execution order; those of layers that do not run come last.

    Of layers that share one weight the first has it. Where only the weights are known, they come in the order of the
    file, and a table of embeddings, which has no bias, is recognised by its name only (``kind`` is ``"Embedding"``).

    Raises:
        SpError: there is none.

    >>> [w.name for w in weights(Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8)))]
    ['0.weight']
    """
    return _found(net, tuple(row for row in _rows(net) if row.part is None))


def matrices(net: Network) -> tuple[Weight, ...]:
    """Like :func:`weights`, and the gates of recurrent layers, each a matrix of its own.

    How they are stacked in their tensors is in :mod:`sp_core.weights.stacked`.

    Raises:
        SpError: there is none.

    >>> class Reader(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.memory = nn.LSTM(8, 5, batch_first=True)
    ...     def forward(self, image):
    ...         return self.memory(image[:, 0])[0][:, -1]
    >>> [w.name for w in matrices(Network(Reader(), name="reader", input_size=(1, 8, 8)))][:2]
    ['memory.weight_ih_l0[i]', 'memory.weight_ih_l0[f]']
    """
    return _found(net, _rows(net))


def _found(net: Network, rows: tuple[Weight, ...]) -> tuple[Weight, ...]:
    if not rows:
        raise SpError(f"{net.name} has no convolution and no linear layer, so it has no weight matrix.")
    return rows


def _rows(net: Network) -> tuple[Weight, ...]:
    try:
        running = list(dict.fromkeys(layer.module for layer in net.layers))
    except SpError:  # weights can be looked at even where the network cannot run
        running = []
    found: list[Weight] = []
    seen: set[int] = set()
    for path, runs in _order(net.module, running):
        module = net.module.get_submodule(path)
        for block in blocks(module):
            start = f"{path}." if path else ""
            layer = start + block.name.removeprefix("weight_")
            found.append(Weight(start + block.name, layer, block.kind, block.tensor, runs=runs, part=block.words))
        tensor = _weight(module)
        if tensor is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        groups, kind = int(getattr(module, "groups", 1)), parametrize.type_before_parametrizations(module).__name__
        if not net.has_graph:
            kind = _kind(path, module, tensor)
        if isinstance(module, _TRANSPOSED) or kind.startswith("ConvTranspose"):
            tensor = tensor.transpose(0, 1)
        found.append(Weight(f"{path}.weight" if path else "weight", path, kind, tensor, groups, runs))
    return tuple(found)


def _order(module: nn.Module, running: list[str]) -> list[tuple[str, bool]]:
    """All modules and whether they run: those in ``running`` in that order, then the others.

    A module of stacked matrices has a pair as its output, so it is not among the layers; it is put after the module
    that was registered before it, and taken to run.
    """
    if not running:
        return [(name, True) for name, _ in module.named_modules()]
    order, ran, before = list(running), set(running), ""
    for name, part in module.named_modules():
        if name not in ran and blocks(part):
            order.insert(order.index(before) + 1 if before in ran else 0, name)
            ran.add(name)
        before = name if name in ran else before
    return [(name, True) for name in order] + [(name, False) for name, _ in module.named_modules() if name not in ran]


def _kind(path: str, module: nn.Module, weight: Tensor) -> str:
    """What a layer of which only the weights are known is, as far as name and shapes say."""
    bias = module._parameters.get("bias")
    if weight.ndim == 2 and bias is None and _EMBEDDING.fullmatch(path):
        return "Embedding"
    # Only a transposed convolution has as many biases as its weight has columns, and not rows.
    if weight.ndim in {3, 4, 5} and bias is not None and bias.shape == weight.shape[1:2] != weight.shape[:1]:
        return f"ConvTranspose{weight.ndim - 2}d"
    return type(module).__name__


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
    rows = matrices(net)
    for row in rows:
        if name in {row.name, row.layer}:
            return row
    some = ", ".join(row.layer for row in rows[:6])
    raise SpError(f"'{name}' is not one of the {len(rows)} weights of {net.name}; the first are {some}.")
