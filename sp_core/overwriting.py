"""A network made safe to share, and which of its activations must overwrite what they are given.

``nn.ReLU(inplace=True)`` is nearly always only a saving of memory, and then it can be turned off, so that a map which
somebody holds is not overwritten. But ``self.relu(x); return x`` and ``x + self.relu(x)`` compute something else
without it: there a later operation reads what the activation was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sp_core.trace import input_dtype, private_copy, tensors_in


def frozen(module: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy of ``module`` that shares the memory of its weights but none of its state."""
    needed = needed_in_place(module, input_size)
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): b.detach() for b in module.buffers()}
    clone = private_copy(module, memo=memo).eval()
    for name, part in clone.named_modules():
        if getattr(part, "inplace", None) is True and name not in needed:
            part.inplace = False  # type: ignore[assignment] # a captured map must not be overwritten after it
            part.was_inplace = True  # type: ignore[assignment]
    return clone


def in_place(clone: nn.Module) -> nn.Module:
    """Let a private copy's activations overwrite their inputs again, where the network's author did.

    For passes that are done with a map before the next layer runs: a tenth of the time, in networks of small kernels.
    """
    for part in clone.modules():
        if getattr(part, "was_inplace", False):
            part.inplace = True  # type: ignore[assignment]
    return clone


# These ask a tensor what it is like, and read none of its values.
_ASKS = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_contiguous", "__len__", "ndimension"}
_ASKS |= {"untyped_storage", "is_meta"}


class _Readers(TorchFunctionMode):
    """Notes which of the ``overwritten`` storages are read: storage id to module."""

    def __init__(self) -> None:
        super().__init__()
        self.overwritten: dict[int, nn.Module] = {}
        self.held: list[Tensor] = []  # storages stay alive, or another's could get the same address
        self.needed: list[nn.Module] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.overwritten and getattr(func, "__name__", "") not in _ASKS:
            self.read([*args, *kwargs.values()])
        if func is F.batch_norm:
            return torch.empty_like(
                args[0] if args else kwargs["input"]
            )  # its meta kernel takes longer than all the rest of the network
        return func(*args, **kwargs)

    def read(self, values: Any) -> None:
        """Note that ``values`` are read."""
        for tensor in tensors_in(values):
            module = self.overwritten.get(tensor.untyped_storage()._cdata)
            if module is not None:
                self.needed.append(module)


def needed_in_place(module: nn.Module, input_size: tuple[int, int, int]) -> set[str]:
    """Names of the submodules with ``inplace=True`` whose inputs are read again after they ran.

    One pass on the meta device, with all of them turned off. A network that cannot be run there has none that are
    known of.

    >>> class Again(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.one, self.two = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    ...     def forward(self, x):
    ...         x = self.one(x * 2)
    ...         self.two(x)
    ...         return x
    >>> needed_in_place(Again(), (3, 8, 8))
    {'two'}
    """
    if not any(getattr(part, "inplace", None) is True for part in module.modules()):
        return set()
    clone = private_copy(module, to="meta").eval()
    parts = {part: name for name, part in clone.named_modules() if getattr(part, "inplace", None) is True}
    mode = _Readers()

    def ran(part: nn.Module, inputs: Any, output: Any) -> None:
        made = {tensor.untyped_storage()._cdata for tensor in tensors_in([output])}
        for tensor in tensors_in(list(inputs)):
            storage = tensor.untyped_storage()._cdata
            if storage not in made:  # dropout that is off gives back what it was given
                mode.held.append(tensor)
                mode.overwritten[storage] = part

    for part in parts:
        part.inplace = False  # type: ignore[assignment]
        part.register_forward_hook(ran)
    images = torch.empty(1, *input_size, dtype=input_dtype(module), device="meta")
    try:
        with torch.no_grad(), mode:
            output = clone(images)
        mode.read([output])
    except Exception:  # noqa: BLE001 - a network may do anything on the meta device; that it was run is not promised
        return set()
    return {parts[part] for part in mode.needed}
