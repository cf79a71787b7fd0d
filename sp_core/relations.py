"""Which layer is given the very output of which other: found by one pass on the meta device, kept with the network."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sp_core.network import Network
from sp_core.trace import LayerNames, layer_name, private_copy, single


def relations(net: Network) -> tuple[dict[str, str], dict[str, str]]:
    """Layers whose output is an earlier layer's very output, and leaves whose input is; layer name to layer name."""
    if net not in _relations:
        _relations[net] = _traced(net)
    return _relations[net]


_relations: WeakKeyDictionary[Network, tuple[dict[str, str], dict[str, str]]] = WeakKeyDictionary()


def _traced(net: Network) -> tuple[dict[str, str], dict[str, str]]:
    clone = private_copy(net.module, to="meta")
    names = LayerNames(clone)
    owner: dict[tuple[int, int, int, tuple[int, ...]], str] = {}
    held: list[Tensor] = []  # storages stay alive, or another's could get the same address
    same: dict[str, str] = {}
    follows: dict[str, str] = {}

    def mark(tensor: Tensor) -> tuple[int, int, int, tuple[int, ...]]:
        # An in-place operation in between raises the version: the storage is the same, the values are not.
        storage = tensor.untyped_storage()
        return storage._cdata, tensor._version, int(tensor.storage_offset()), tuple(tensor.shape)

    def note(part: nn.Module, inputs: Any, output: Any) -> None:
        path, call = names.next(part)
        name, tensor, given = layer_name(path, call), single(output), single(inputs)
        if next(part.children(), None) is None and given is not None and mark(given) in owner:
            follows[name] = owner[mark(given)]
        if tensor is not None:
            held.append(tensor)
            if mark(tensor) in owner:
                same[name] = owner[mark(tensor)]
            else:
                owner[mark(tensor)] = name

    for part in clone.modules():
        if part is not clone:
            part.register_forward_hook(note)
    try:
        with torch.no_grad():
            clone.eval()(torch.empty(1, *net.input_size, device="meta"))
    except Exception:  # noqa: BLE001 - a network that needs real numbers is indexed without this saving
        return {}, {}
    return same, follows
