"""What the rules work on: the shadow that a tensor carries, and one operation with its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.shadows.shadow import LIMIT, Shadow, align, nothing, shrink, union, whole


def node_of(tensor: Any) -> Node | None:
    """What ``tensor`` carries, if anything."""
    return getattr(tensor, "_sp_node", None)


def attach(tensor: Tensor, node: Node) -> None:
    """Let ``tensor`` carry ``node``; a plain attribute stays with the tensor also while only C++ holds it."""
    tensor._sp_node = node  # type: ignore[attr-defined]


def forget(clone: nn.Module) -> None:
    """Take away what a pass has left on the weights of ``clone``."""
    for tensor in [*clone.parameters(), *clone.buffers()]:
        vars(tensor).pop("_sp_node", None)


def know(clone: nn.Module, module: nn.Module) -> None:
    """Tell the whole numbers in the buffers of ``clone``, which lie on the meta device: those of ``module``'s own."""
    for empty, buffer in zip(clone.buffers(), module.buffers(), strict=True):
        if not buffer.is_floating_point() and not buffer.is_meta:
            empty._sp_values = buffer.detach().cpu()  # type: ignore[attr-defined]


def known(index: Tensor) -> Tensor | None:
    """The numbers in a tensor of indices; None on the meta device, unless it is a buffer that was told of."""
    return getattr(index, "_sp_values", None) if index.is_meta else index.cpu()


@dataclass
class Node:
    """What is known of one tensor: its shadow (None for a constant), and what it is a view of.

    The shadow of a view is derived again when the tensor it looks at has been written to since.
    """

    shadow: Shadow | None
    base: Node | None = None
    derive: Callable[[Shadow], Shadow] = field(default=lambda shadow: shadow)
    slot: Callable[[Tensor], Tensor] = field(default=lambda part: part)
    shape: torch.Size = field(default_factory=torch.Size)
    stamp: int = 0
    seen: int = 0

    def read(self) -> Shadow | None:
        """The shadow as of now."""
        if self.base is not None:
            below = self.base.read()
            if self.base.stamp != self.seen:
                self.shadow, self.seen = self.derive(below) if below else None, self.base.stamp
                self.stamp += 1
        return self.shadow

    def write(self, shadow: Shadow) -> None:
        """The tensor has been overwritten in place: so has the part of its base that it looks at."""
        if self.base is None:
            self.shadow = shadow
            self.stamp += 1
            return
        shape = self.base.shape
        old = self.base.read() or nothing(len(shape))
        if shape.numel() > LIMIT:
            note = "a write into a part of a large tensor was taken as a write anywhere in it"
            both = union([whole(old, len(shape)), whole(shadow, len(shape))], len(shape))
            self.base.write(both.noting(note))
            return
        parts = []
        for mine, its in zip(old.parts, shadow.parts, strict=True):
            full = align(mine, len(shape)).expand(shape).clone()
            self.slot(full).copy_(its)
            parts.append(shrink(full))
        self.base.write(Shadow(tuple(parts), old.notes | shadow.notes))


@dataclass
class Call:
    """One operation as the rules see it."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    local: bool
    shapes: tuple[torch.Size | None, ...]
    extent: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """``"convolution"`` of ``aten.convolution.default``, without the underscore of in-place operations."""
        name = self.function._schema.name.split("::")[1]
        return name if name.startswith("__") else name.rstrip("_")

    def named(self) -> dict[str, Any]:
        """All arguments by their names in the operation's schema, defaults included."""
        schema = self.function._schema.arguments
        values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
        return values | {a.name: v for a, v in zip(schema, self.args, strict=False)} | self.kwargs

    def arg(self, position: int, name: str, *default: Any) -> Any:
        """An argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, *default)

    def shadow_of(self, tensor: Any) -> Shadow | None:
        """The shadow of an argument; None for a constant."""
        node = node_of(tensor)
        return None if node is None else node.read()

    def shadow(self, position: int) -> Shadow:
        """The shadow of a tensor argument."""
        tensor = self.args[position]
        return self.shadow_of(tensor) or nothing(tensor.ndim)
