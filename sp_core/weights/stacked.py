"""Matrices that PyTorch keeps stacked in one tensor: the gates of recurrent layers, and query, key and value.

A recurrent layer multiplies its input (``weight_ih``) and its last output (``weight_hh``) with one matrix a gate, and
keeps them as blocks of rows in the order that ``torch.nn`` documents: an LSTM input, forget, cell, output (``i``,
``f``, ``g``, ``o``), a GRU reset, update, new (``r``, ``z``, ``n``). An LSTM with ``proj_size`` has one more matrix,
``weight_hr``, that is not divided. ``in_proj_weight`` of ``nn.MultiheadAttention`` holds query, key and value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# By how many blocks of rows there are for one row of state: the layer's kind and its gates.
RECURRENT = {4: ("LSTM", ("i", "f", "g", "o")), 3: ("GRU", ("r", "z", "n")), 1: ("RNN", ("",))}
WORDS = {
    "i": "input gate", "f": "forget gate", "g": "cell candidate", "o": "output gate",
    "r": "reset gate", "z": "update gate", "n": "new candidate",
    "q": "query", "k": "key", "v": "value", "": "",
}  # fmt: skip
_NAME = re.compile(r"weight_(ih|hh|hr)(_l\d+(?:_reverse)?)?")
_ATTENTION = "in_proj_weight"
_FROM = {"ih": "from the input", "hh": "from the state", "hr": "projection of the state"}


@dataclass(frozen=True, eq=False)
class Block:
    """One matrix of a stacked tensor.

    Attributes:
        parameter: the tensor's name in its module, ``"weight_ih_l0_reverse"``.
        gate: ``"i"``, ``"f"`` …; "" where the tensor is not divided.
        kind: ``"LSTM"``, ``"GRU"``, ``"RNN"`` or ``"attention"``.
        tensor: ``[rows of the gate, columns]``, a view of the whole.
    """

    parameter: str
    gate: str
    kind: str
    tensor: Tensor

    @property
    def name(self) -> str:
        """``"weight_ih_l0[f]"``: the tensor's name and, in brackets, which block of its rows."""
        return f"{self.parameter}[{self.gate}]" if self.gate else self.parameter

    @property
    def words(self) -> str:
        """What the matrix does, as a person would say it: ``"forget gate, from the state"``."""
        match = _NAME.fullmatch(self.parameter)
        return ", ".join(part for part in (WORDS[self.gate], _FROM[match.group(1)] if match else "") if part)


def blocks(module: nn.Module) -> tuple[Block, ...]:
    """The stacked matrices of one module, in the order of its tensors; none for most kinds of layers.

    Which kind of recurrent layer it is follows from the shapes: ``weight_hh`` has 4, 3 or 1 rows for each of its
    columns. Where that is none of these, the tensors are given whole.

    >>> [block.name for block in blocks(nn.GRU(2, 3))][:4]
    ['weight_ih_l0[r]', 'weight_ih_l0[z]', 'weight_ih_l0[n]', 'weight_hh_l0[r]']
    """
    return tuple(_blocks(module))


def _blocks(module: nn.Module) -> Iterator[Block]:
    own = _matrices(module)
    for name, tensor in own.items():
        kind: str = "attention"
        gates: tuple[str, ...] = ("q", "k", "v") if len(tensor) % 3 == 0 else ("",)
        if name != _ATTENTION:
            part, suffix = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
            kind, gates = _recurrent(own, suffix or "")
            if part == "hr":
                gates = ("",)
        rows = len(tensor) // len(gates)
        for index, gate in enumerate(gates):
            yield Block(name, gate, kind, tensor[index * rows : (index + 1) * rows])


def _matrices(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors with such names, in order; a parametrised one is computed from its parts."""
    names = [*module._parameters, *getattr(module, "parametrizations", {})]
    found: dict[str, Tensor] = {}
    for name in names:
        if name == _ATTENTION or _NAME.fullmatch(name):
            with torch.no_grad():
                tensor: Any = getattr(module, name)
            uninitialised = isinstance(tensor, nn.parameter.UninitializedParameter)
            if isinstance(tensor, Tensor) and not uninitialised and tensor.ndim == 2 and tensor.numel():
                found[name] = tensor if isinstance(tensor, nn.Parameter) else tensor.detach()
    return found


def _recurrent(own: dict[str, Tensor], suffix: str) -> tuple[str, tuple[str, ...]]:
    """Kind and gates of the layer whose tensors end in ``suffix``, such as ``_l0_reverse``."""
    state, projection = own.get(f"weight_hh{suffix}"), own.get(f"weight_hr{suffix}")
    if state is None:
        return "recurrent", ("",)
    size = state.shape[1] if projection is None else projection.shape[1]
    return RECURRENT.get(len(state) // size, ("recurrent", ("",))) if len(state) % size == 0 else ("recurrent", ("",))
