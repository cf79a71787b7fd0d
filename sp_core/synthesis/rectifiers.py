"""What ReLUs hide from gradient ascent, and two ways round it that touch no module and no other thread.

A ReLU whose input is negative everywhere passes no gradient: ascent that starts there never starts. Lucid's
*redirected* gradient lets it through for the first steps, only where it would push negative inputs up. And a unit that
ends in a ReLU cannot go below 0, so its negative optimum is sought in the value before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh}


class BeforeReLU(TorchFunctionMode):
    """While active in this thread, remembers the input of every ReLU by its output; see :meth:`of`."""

    def __init__(self) -> None:
        super().__init__()
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``; note input and output if it is a ReLU, ReLU6 or hardtanh."""
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        value = args[0] if args else kwargs["input"]
        in_place = func.__name__.endswith("_") or kwargs.get("inplace") or any(arg is True for arg in args)
        before = value.clone() if in_place else value  # or the ReLU would overwrite what is to be remembered
        output = func(*args, **kwargs)
        self._inputs[id(output)] = (output, before)
        return output

    def of(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """For those of ``maps`` (layer name to output) that came straight from a ReLU: what went into it."""
        found = {name: self._inputs.get(id(output)) for name, output in maps.items()}
        return {name: pair[1] for name, pair in found.items() if pair is not None}


def redirect(values: Tensor) -> int:
    """Hang Lucid's redirected gradient on every ReLU of the graph of ``values``; returns how many.

    For each sample whose whole gradient at a ReLU is zero, the gradient of its output is passed on except where a step
    against it would push a negative input further down, or (ReLU6, hardtanh) one above the maximum further up. The
    hooks are on the graph of this one backward pass and go with it.
    """
    count = 0
    for node in _nodes(values.grad_fn):
        limits = _limits(node)
        if limits is not None:
            node.register_hook(_redirected(*limits))
            count += 1
    return count


def _redirected(low: Tensor, high: Tensor | None) -> Callable[[Any, Any], Any]:
    def hook(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> Any:
        own, above = grad_inputs[0], grad_outputs[0]
        if own is None or above is None:
            return None
        dead = (own.flatten(1) == 0).all(1).view(-1, *[1] * (own.ndim - 1))
        if not dead.any():
            return None
        blocked = low & (above > 0)
        if high is not None:
            blocked |= high & (above < 0)
        return (torch.where(dead, above.masked_fill(blocked, 0), own), *grad_inputs[1:])

    return hook


def _limits(node: Any) -> tuple[Tensor, Tensor | None] | None:
    """Where a ReLU's input was at or below its minimum and, if it has one, at or above its maximum."""
    kind = node.name()
    if kind == "ReluBackward0":
        return node._saved_result <= 0, None
    if kind == "HardtanhBackward0":
        value = node._saved_self
        return value <= node._saved_min_val, value >= node._saved_max_val
    if kind == "ThresholdBackward0":
        return node._saved_self <= node._saved_threshold, None
    if kind == "ClampMinBackward0":
        return node._saved_self <= node._saved_min, None
    if kind in {"ClampBackward0", "ClampBackward1"} and isinstance(node._saved_min, (int, float)):
        top = node._saved_max
        return node._saved_self <= node._saved_min, None if top is None else node._saved_self >= top
    return None


def _nodes(root: Any) -> Iterator[Any]:
    """Every node of an autograd graph, once."""
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack += [following for following, _ in node.next_functions]
