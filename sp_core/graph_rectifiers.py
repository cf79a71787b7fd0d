"""The rectifiers among the operations of one autograd graph: which they are, and how a rule is hung on them.

What is a rectifier, and what the rules do to it, is written in :mod:`sp_core.rules`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from sp_core.errors import SpError

# Autograd's name of an operation -> what people call it; none of them is a rectifier.
_OTHERS = {
    "Silu": "SiLU",
    "Gelu": "GELU",
    "Hardswish": "Hardswish",
    "Hardsigmoid": "Hardsigmoid",
    "Elu": "ELU",
    "Celu": "CELU",
    "Mish": "Mish",
    "Softplus": "Softplus",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "LogSigmoid": "LogSigmoid",
    "Glu": "GLU",
    "Hardtanh": "Hardtanh",
    "Clamp": "clamp",
    "ClampMin": "clamp",
    "ClampMax": "clamp",
    "Softshrink": "Softshrink",
    "Hardshrink": "Hardshrink",
}


def sorted_out(nodes: list[Any]) -> tuple[list[tuple[Any, int]], tuple[tuple[str, int], ...]]:
    """The rectifiers among ``nodes``, each with the input that is rectified, and the other activations, counted."""
    rectifiers: list[tuple[Any, int]] = []
    others: Counter[str] = Counter()
    for node in nodes:
        # Most are dull, and to look at each of them would take 2 % of the time of a small network.
        if _is_dull(type(node)):  # type: ignore[arg-type]
            continue
        kind = _kind(node)
        if (place := _rectified(node, kind)) is not None:
            rectifiers.append((node, place))
        elif name := _other(node, kind):
            others[name] += 1
    return rectifiers, tuple(sorted(others.items()))


def walk(numbers: Tensor) -> list[Any]:
    """Every autograd node that ``numbers`` came through."""
    if numbers.grad_fn is None:
        raise SpError("The target does not depend on the image: there is no path from it to the pixels.")
    seen, ahead = {numbers.grad_fn: None}, [numbers.grad_fn]  # a dictionary: it keeps the order, and each node alive
    while ahead:
        for node, _ in ahead.pop().next_functions:
            if node is not None and node not in seen:
                seen[node] = None
                ahead.append(node)
    return list(seen)


def operations(nodes: list[Any]) -> set[str]:
    """What the operations among ``nodes`` are called."""
    found = {kind.__name__ for kind in {type(node) for node in nodes}}
    if _NAMELESS in found:
        found |= {_name(node) for node in nodes if type(node).__name__ == _NAMELESS}
    return found


def _name(node: Any) -> str:
    """What autograd calls the operation. Its type is called the same, and says so in a tenth of the time."""
    name = type(node).__name__
    return str(node.name()) if name == _NAMELESS else name


_NAMELESS = "CppFunction"  # the type of those that have none of their own


def _kind(node: Any) -> str:
    """``"Relu"`` of ``"ReluBackward0"``."""
    return _without_number(_name(node))


@cache
def _without_number(name: str) -> str:
    return re.sub(r"Backward\d*$", "", name)


@cache
def _is_dull(kind: type) -> bool:
    """Whether nodes of this type are neither rectifiers nor other activations, whatever they hold."""
    name = _without_number(kind.__name__)
    named = name not in _RECTIFYING and name not in _OTHERS and name != _NAMELESS
    return named and not issubclass(kind, BackwardCFunction)


def _other(node: Any, kind: str) -> str | None:
    """What people call an activation that is not a rectifier (or an operation with its own backward); else None."""
    own: bool = isinstance(node, BackwardCFunction)
    return _name(node) if own else _OTHERS.get(kind)


def _is_zero(bound: Any) -> bool:
    return bound is not None and bool((bound == 0).all() if isinstance(bound, Tensor) else bound == 0)


_ALWAYS = {"Relu", "Threshold", "LeakyRelu", "PreluKernel", "RreluWithNoise"}
_RECTIFYING = _ALWAYS | {"Hardtanh", "Clamp", "ClampMin", "Maximum"}  # these by their limit


def _rectified(node: Any, kind: str) -> int | None:
    """Which input of the node is rectified (0 but for ``maximum(0, x)``), or None when it is no rectifier."""
    if kind in _ALWAYS:
        return 0
    if kind == "Hardtanh" and _is_zero(node._saved_min_val):
        return 0
    if kind in {"Clamp", "ClampMin"} and _is_zero(node._saved_min):
        return 0
    if kind == "Maximum":  # the side without a graph is a constant
        sides = [node.next_functions[0][0], node.next_functions[1][0]]
        if sides[1] is None and _is_zero(node._saved_other):
            return 0
        if sides[0] is None and _is_zero(node._saved_self):
            return 1
    return None


def hang(node: Any, place: int, rule: str) -> list[Any]:
    """Put ``rule`` on one rectifier of the graph; returns the handles that take it off again.

    These nodes (``_FRESH``) pass on a tensor that they have just made and that nobody else holds, so it is changed in
    place while it is in the processor's cache: a copy would cost 5 to 10 % of the whole call. What *arrives* at a node
    may be shared with another branch and is never written to.
    """
    if rule == "gradient":
        return []
    if _kind(node) not in _FRESH:
        return [_hang_copying(node, place, rule)]
    return [node.register_hook(_cut if rule == "guided" else _replace)]


def _cut(passed: Sequence[Tensor | None], _: Sequence[Tensor | None]) -> None:
    if passed[0] is not None:
        torch.relu_(passed[0])  # [f > 0] · [R > 0] · R: the mask first or the sign first, it is the same


def _replace(passed: Sequence[Tensor | None], arrived: Sequence[Tensor | None]) -> None:
    if passed[0] is not None and arrived[0] is not None:
        torch.clamp(arrived[0], min=0, out=passed[0])


_FRESH = {"Relu", "Threshold", "Hardtanh", "Clamp", "ClampMin"}


def _hang_copying(node: Any, place: int, rule: str) -> Any:
    """The same for rectifiers with slopes, which may be negative, and for ``maximum``."""
    if rule == "guided":  # cut what arrives; the node's own backward then applies the forward mask
        return node.register_prehook(lambda grads: tuple(_positive(grad) for grad in grads))

    def replace(passed: Sequence[Tensor | None], arrived: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        return tuple(_positive(arrived[0]) if index == place else grad for index, grad in enumerate(passed))

    return node.register_hook(replace)


def _positive(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.clamp(min=0)


class CopyInPlace(TorchFunctionMode):
    """Runs in-place rectifiers as "compute, then copy", which leaves the rectifier visible in the graph.

    Autograd wraps an in-place operation on a view in a ``CopySlices`` node that hides it. The mode is thread-local.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        plain = _out_of_place(func)
        if plain is None and kwargs.get("inplace") is True and func.__name__ in _WITH_INPLACE:
            plain, kwargs["inplace"] = func, False
        if plain is None:
            return func(*args, **kwargs)
        return args[0].copy_(plain(args[0].clone(), *args[1:], **kwargs))  # a clone: the backward needs the old values


_WITH_INPLACE = {"relu", "relu6", "hardtanh", "leaky_relu", "threshold", "_threshold", "rrelu"}
_IN_PLACE = {"relu_", "relu6_", "hardtanh_", "leaky_relu_", "threshold_", "clamp_", "clamp_min_"}


def _out_of_place(func: Any) -> Callable[..., Tensor] | None:
    name = getattr(func, "__name__", "")
    if name not in _IN_PLACE:
        return None
    return getattr(torch, name[:-1], None) or getattr(torch.nn.functional, name[:-1])
