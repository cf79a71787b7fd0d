"""Follow the shadows of an image through everything a network does.

A :class:`torch.utils._python_dispatch.TorchDispatchMode` sees each operation below autograd, whatever module, function
or operator spelled it; it is thread-local and touches no module. Run on the *meta* device it does no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sp_core.shadows import mixes, windows
from sp_core.shadows.call import Call, Node, attach, node_of
from sp_core.shadows.shadow import Shadow, nothing, of_image
from sp_core.shadows.table import ADAPTIVE, CONSTANT, MOVES, POINTWISE, RULES, SAME_SHAPE
from sp_core.trace import tensors_in


class OverBudget(Exception):  # not an error: what was found until then stays
    """The shadows have grown larger than is worth it."""


class Follow(TorchDispatchMode):
    """While entered, every tensor computed from an image given to :meth:`start` carries its shadow.

    Attributes:
        local: hold factors that are one number a channel for the whole map constant (see :func:`mixes.product`).
        ratios: for each adaptive pool in order, how many rows and columns one output position takes, None where that
            is not a whole number. A pass on a larger image that is given the ``ratios`` of the pass on the real one
            pools with these, so that it describes the same network.
        budget: how many numbers all shadows together may have before :class:`OverBudget` is raised.
    """

    def __init__(
        self,
        local: bool = True,
        ratios: list[tuple[int, int] | None] | None = None,
        budget: int | None = None,
    ) -> None:
        super().__init__()
        self.local = local
        self.budget = budget
        self.given = None if ratios is None else list(ratios)
        self.ratios: list[tuple[int, int] | None] = []
        self.paused = False
        self.extent: tuple[int, ...] = ()

    def start(self, image: Tensor) -> Tensor:
        """``image`` ``[n, c, h, w]``, each pixel of which sees itself."""
        self.extent = tuple(image.shape[-2:])
        attach(image, Node(of_image(*image.shape[-2:]), shape=image.shape))
        return image

    def shadow(self, tensor: Tensor) -> Shadow | None:
        """The shadow of a tensor computed under this mode; None when it does not depend on the image."""
        node = node_of(tensor)
        return None if node is None else node.read()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [] if self.paused else tensors_in([*args, *kwargs.values()])
        if not any(self.shadow(tensor) is not None for tensor in tensors):
            return self._constant(function, args, kwargs)
        shapes = tuple(arg.shape if isinstance(arg, Tensor) else None for arg in args)
        function, args = self._same_network(function, args)
        call = Call(function, tuple(args), kwargs, None, self.local, shapes, self.extent)
        call.out = self._run(call)
        if call.name.startswith(CONSTANT) and not function._schema.is_mutable:
            return call.out
        self._attach(call)
        return call.out

    def _constant(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Nothing here depends on the image; but what a view of a constant is a view of may be written to later."""
        out = function(*args, **kwargs)
        returns = function._schema.returns
        view = returns and returns[0].alias_info is not None and not function._schema.is_mutable
        if view and not self.paused and isinstance(args[0], Tensor):
            call = Call(function, tuple(args), kwargs, out, self.local, (args[0].shape,))
            move = MOVES.get(call.name)
            base = node_of(args[0]) or Node(None, shape=args[0].shape)
            attach(args[0], base)
            for k, piece in enumerate(out if isinstance(out, (list, tuple)) else [out]):
                if move is not None and isinstance(piece, Tensor) and piece is not args[0]:
                    attach(piece, Node(None, base, _again(call, move, k), _slot(call, k), piece.shape, seen=base.stamp))
        return out

    def _run(self, call: Call) -> Any:
        x = call.args[0] if call.args else None
        # The meta kernels of these take longer than all the rest of the network together.
        if isinstance(x, Tensor) and x.is_meta and not call.function._schema.is_mutable:
            if call.name in {"native_batch_norm", "_native_batch_norm_legit_no_training"}:
                return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
            if call.name in SAME_SHAPE or _adds_alike(call):
                return torch.empty_like(x)
            if call.name == "convolution" and (shape := _convolved(*call.args)) is not None:
                return x.new_empty(shape)
        return call.function(*call.args, **call.kwargs)

    def _same_network(self, function: Any, args: Any) -> tuple[Any, Any]:
        """Note the ratio of an adaptive pool, or pool with the ratio that was noted before."""
        if function._schema.name.split("::")[1] not in ADAPTIVE:
            return function, args
        x, size = args[0], args[1]
        if self.given is None:
            exact = all(n % out == 0 for n, out in zip(x.shape[-2:], size, strict=True)) and max(size) > 1
            self.ratios.append(tuple(n // out for n, out in zip(x.shape[-2:], size, strict=True)) if exact else None)
            return function, args
        ratio = self.given.pop(0) if self.given else None
        if ratio is None:
            return function, args
        aten = torch.ops.aten
        maximum = "max" in function._schema.name
        return (aten.max_pool2d_with_indices if maximum else aten.avg_pool2d).default, (x, ratio, ratio)

    def _attach(self, call: Call) -> None:
        schema = call.function._schema
        if schema.is_mutable:
            self._mutate(call)
            return
        move = MOVES.get(call.name)
        alias = move is not None and schema.returns[0].alias_info is not None
        found = self._shadows(call, move)
        outputs = call.out if isinstance(call.out, (list, tuple)) else [call.out]
        shadows = found if isinstance(found, list) else [found]
        for k, (out, shadow) in enumerate(zip(outputs, shadows, strict=False)):
            if not isinstance(out, Tensor):
                continue
            node = Node(shadow, shape=out.shape)
            self._spend(shadow)
            if alias:
                node.base = node_of(call.args[0])
                node.seen = node.base.stamp if node.base else 0
                node.derive, node.slot = _again(call, move, k), _slot(call, k)
            attach(out, node)

    def _spend(self, shadow: Shadow) -> None:
        if self.budget is not None:
            self.budget -= sum(part.numel() for part in shadow.parts)
            if self.budget < 0:
                raise OverBudget

    def _shadows(self, call: Call, move: Any) -> Any:
        if move is not None:
            found = move(call, call.shadow(0))
        elif call.name in RULES:
            found = RULES[call.name](call)
        elif torch.Tag.pointwise in call.function.tags or call.name in POINTWISE:
            found = mixes.elementwise(call)
        else:
            found = None
        return mixes.everything(call) if found is None else found

    def _mutate(self, call: Call) -> None:
        """An in-place operation: what it computes is written over its first argument."""
        target = call.args[0] if call.args and isinstance(call.args[0], Tensor) else call.out
        if call.name == "as_strided" and tuple(call.args[1]) == tuple(call.shapes[0] or ()):
            return  # other strides, same elements
        if call.name.startswith(CONSTANT):
            shadow = nothing(target.ndim)
        else:
            call.out = target
            found = self._shadows(call, MOVES.get(call.name))
            shadow = found[0] if isinstance(found, list) else found
        node = node_of(target)
        if node is None:
            node = Node(nothing(target.ndim), shape=target.shape)
            attach(target, node)
        node.write(shadow)


def _adds_alike(call: Call) -> bool:
    """Whether two maps of one shape and type are added."""
    if call.name != "add" or not all(isinstance(part, Tensor) for part in call.args[:2]):
        return False
    first, second = call.args[:2]
    return second.is_meta and (first.shape, first.dtype) == (second.shape, second.dtype)


def _convolved(
    x: Tensor, weight: Tensor, _bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> list[int] | None:
    """The shape that a convolution puts out; None where torch has to say it, or what is wrong."""
    count = weight.ndim - 2
    if transposed or x.ndim != weight.ndim or not len(stride) == len(padding) == len(dilation) == count:
        return None
    every = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in every]
    return [x.shape[0], weight.shape[0], *sizes] if min(sizes) > 0 else None


def _again(call: Call, move: Any, which: int) -> Callable[[Shadow], Shadow]:
    def derive(shadow: Shadow) -> Shadow:
        found = move(call, shadow)
        return found[which] if isinstance(found, list) else found

    return derive


def _slot(call: Call, which: int) -> Callable[[Tensor], Tensor]:
    def slot(part: Tensor) -> Tensor:
        view = call.function(part, *call.args[1:], **call.kwargs)
        return view[which] if isinstance(view, (list, tuple)) else view

    return slot


class _Functions(TorchFunctionMode):
    """Rules for functions whose parts would be far larger than the whole: linear layers on maps, circular padding."""

    def __init__(self, follow: Follow) -> None:
        super().__init__()
        self.follow = follow

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args and isinstance(args[0], Tensor) else None
        shadow = None if x is None else self.follow.shadow(x)
        rule = self._rule(function, args, kwargs) if shadow is not None else None
        if rule is None:
            return function(*args, **kwargs)
        self.follow.paused = True
        try:
            out = function(*args, **kwargs)
        finally:
            self.follow.paused = False
        call = Call(function, args, kwargs, out, self.follow.local, ())
        attach(out, Node(rule(call), shape=out.shape))
        return out

    @staticmethod
    def _rule(function: Any, args: Any, kwargs: Any) -> Callable[[Call], Shadow] | None:
        name = getattr(function, "__name__", "")
        if name == "linear" and args[0].ndim > 2:
            return mixes.linear
        if name == "scaled_dot_product_attention":
            return mixes.attention
        if name == "pad" and "circular" in {*args[2:3], kwargs.get("mode")}:
            return windows.pad("circular")
        return None


@contextmanager
def follow(
    image: Tensor,
    local: bool = True,
    ratios: list[tuple[int, int] | None] | None = None,
    budget: int | None = None,
) -> Iterator[Follow]:
    """Inside this context the shadows of ``image`` ``[n, c, h, w]`` are followed; see :class:`Follow`.

    >>> image = torch.empty(1, 3, 8, 8, device="meta")
    >>> with follow(image) as shadows:
    ...     out = torch.nn.functional.avg_pool2d(image, 2)
    >>> shadows.shadow(out).parts[0].flatten().tolist()
    [0, 2, 4, 6]
    """
    mode = Follow(local, ratios, budget)
    mode.start(image)
    with torch.no_grad(), _Functions(mode), mode:
        yield mode
