"""One traced forward pass: which layers run, in which order, with which output shapes.

The pass runs on the *meta* device (shapes without arithmetic), on a private copy whose parameters are empty meta
tensors, so it costs milliseconds, no memory, and touches nothing of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sp_core.errors import NeedsGraph, SpError


@dataclass(frozen=True)
class Layer:
    """One call of one module in the forward pass.

    Attributes:
        name: the module's path (``"layer1.0.conv1"``); the second call of a shared module is ``"layer1.0.relu#2"``.
        kind: the module's class, ``"Conv2d"``.
        output_shape: without the batch: ``(c, h, w)`` for a map, ``(n,)`` for a vector.
        channels_last: the first axis grows with the image, so it is not the channels: ``(h, w, c)`` inside ConvNeXt's
            blocks, ``(windows, tokens, c)`` in attention over windows. Such a layer has no maps here.
        module: the module's path without the call number.
        call: 1 for the first call of the module, 2 for the second …
        leaf: False for a container such as ``"layer1"``, whose output is that of its last part.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    module: str
    call: int = 1
    leaf: bool = True
    channels_last: bool = False

    @property
    def is_map(self) -> bool:
        """Whether the output is a stack of channels over space, ``(c, h, w)``."""
        return len(self.output_shape) == 3 and not self.channels_last

    @property
    def channels(self) -> int:
        """How many channels (of a map) or elements (of a vector) the output has."""
        return self.output_shape[-1 if self.channels_last else 0] if self.output_shape else 0


def _stray_tensors(module: nn.Module) -> list[Tensor]:
    """Tensors that are attributes but neither parameter nor buffer (old-style weight norm leaves one)."""
    found = []
    for part in module.modules():
        found += [value for value in vars(part).values() if isinstance(value, Tensor)]
    return found


def private_copy(module: nn.Module, to: str | None = None, memo: dict[int, Any] | None = None) -> nn.Module:
    """A structural copy of ``module`` that shares its weights, for work that must hang hooks on modules.

    Copying costs a few milliseconds and no weight memory. Hooks already on ``module`` are not copied, and hooks put on
    the copy are seen by nobody else. With ``to="meta"`` the copy has empty meta tensors in place of the weights;
    ``memo`` names other tensors to put in place of some (object id to tensor, as :func:`copy.deepcopy` takes it).

    >>> net = nn.Linear(3, 2)
    >>> private_copy(net).weight is net.weight
    True
    """
    memo = {} if memo is None else memo
    for tensor in [*module.parameters(), *module.buffers()]:
        shared: Tensor = tensor
        if to is not None:
            shared = torch.empty_like(tensor, device=to)
            if isinstance(tensor, nn.Parameter):
                shared = nn.Parameter(shared, requires_grad=False)
        memo.setdefault(id(tensor), shared)
    for tensor in _stray_tensors(module):
        memo[id(tensor)] = tensor.detach() if to is None else torch.empty_like(tensor, device=to)
    clone = copy.deepcopy(module, memo)
    for part in clone.modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(part, hooks, {}).clear()
    return clone


def single(output: Any) -> Tensor | None:
    """The tensor in a module's output, or None when there is not exactly one (a tuple of maps, a dictionary)."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and len(output) == 1:
        return single(output[0])
    return None


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in tensors_in(value)]
    return []


class LayerNames:
    """Gives each module call its layer name; made anew for every forward pass."""

    def __init__(self, module: nn.Module) -> None:
        # The same module under two paths keeps the first, as named_modules() does.
        self.path = {id(part): name for name, part in module.named_modules()}
        self.calls: dict[str, int] = {}

    def next(self, part: nn.Module) -> tuple[str, int]:
        """The path and the 1-based call number of this call of ``part``."""
        path = self.path[id(part)]
        self.calls[path] = self.calls.get(path, 0) + 1
        return path, self.calls[path]


def layer_name(path: str, call: int) -> str:
    """``"relu"`` for the first call, ``"relu#2"`` for the second."""
    return path if call == 1 else f"{path}#{call}"


def input_dtype(module: nn.Module) -> torch.dtype:
    """The type of the images that ``module`` takes: that of its first floating-point parameter, else float32."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def trace_layers(module: nn.Module, input_size: tuple[int, int, int]) -> tuple[Layer, ...]:
    """The layers that run on one input of ``input_size`` (c, h, w), in the order in which they finish.

    Raises:
        SpError: the network does not accept an input of that size.
        NeedsGraph: only its weights are known.

    >>> class Last(nn.Module):
    ...     def forward(self, x):
    ...         return x.permute(0, 2, 3, 1)
    >>> layers = trace_layers(nn.Sequential(nn.Conv2d(3, 4, 3), Last()), (3, 8, 8))
    >>> [(layer.output_shape, layer.channels_last) for layer in layers]
    [((4, 6, 6), False), ((6, 6, 4), True)]
    """
    dtype = input_dtype(module)
    try:
        images = torch.empty(1, *input_size, dtype=dtype, device="meta")
        layers = run_layers(private_copy(module, to="meta"), images)
        return with_axes(layers, _twice(layers, module, input_size))
    except NeedsGraph:
        raise
    except Exception as meta_error:  # noqa: BLE001 - a network may do anything; real numbers are the second try
        try:
            device = next((p.device for p in module.parameters()), torch.device("cpu"))
            layers = run_layers(private_copy(module), torch.zeros(1, *input_size, dtype=dtype, device=device))
            return with_axes(layers, _twice(layers, module, input_size))
        except Exception as error:
            raise SpError(
                f"The network does not run on an input of {'×'.join(map(str, input_size))} "
                f"(channels × height × width): {str(error) or str(meta_error)}. Give the size it was trained with."
            ) from error


def with_axes(layers: tuple[Layer, ...], larger: Mapping[str, tuple[int, ...]]) -> tuple[Layer, ...]:
    """``layers`` with ``channels_last`` found out, which no shape alone can tell: ``(56, 56, 96)``.

    ``larger`` has the output shapes on an image of more rows and columns, where space grows and channels do not. A
    network may refuse that size; layers behind the refusal are taken to have their channels first.
    """
    return tuple(
        replace(
            layer, channels_last=layer.is_map and larger.get(layer.name, layer.output_shape)[0] > layer.output_shape[0]
        )
        for layer in layers
    )


def _twice(
    layers: tuple[Layer, ...], module: nn.Module, input_size: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """The output shapes on an image of twice the height and width, as far as the network takes it."""
    shapes: dict[str, tuple[int, ...]] = {}
    if any(layer.is_map for layer in layers):
        channels, height, width = input_size
        images = torch.empty(1, channels, 2 * height, 2 * width, dtype=input_dtype(module), device="meta")
        with suppress(Exception):  # whatever a network raises of a size that is not its own
            clone = private_copy(module, to="meta")
            run_layers(clone, images, lambda layer, _: shapes.update({layer.name: layer.output_shape}))
    return shapes


def weight_makers(module: nn.Module) -> set[int]:
    """Ids of the modules that make the weights of parametrised layers: they run, but they are no layers.

    >>> net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    >>> len(weight_makers(net)), len(weight_makers(nn.Linear(2, 2)))
    (3, 0)
    """
    lists = [part.parametrizations for part in module.modules() if parametrize.is_parametrized(part)]
    return {id(maker) for own in lists for maker in own.modules()}  # type: ignore[union-attr]


def run_layers(
    clone: nn.Module, images: Tensor, visit: Callable[[Layer, Tensor], None] | None = None
) -> tuple[Layer, ...]:
    """Run ``clone`` (a private copy) once and list its layers; ``visit`` sees each output."""
    layers: list[Layer] = []
    names, makers = LayerNames(clone), weight_makers(clone)

    def note(part: nn.Module, _inputs: Any, output: Any) -> None:
        path, call = names.next(part)
        tensor = single(output)
        if path and tensor is not None and tensor.ndim >= 2 and tensor.shape[0] == images.shape[0]:
            layer = Layer(
                name=layer_name(path, call),
                kind=parametrize.type_before_parametrizations(part).__name__,
                output_shape=tuple(tensor.shape[1:]),
                module=path,
                call=call,
                leaf=all(id(child) in makers for child in part.children()),
            )
            layers.append(layer)
            if visit is not None:
                visit(layer, tensor)

    handles = [part.register_forward_hook(note) for part in clone.modules() if id(part) not in makers]
    try:
        with torch.no_grad():
            clone.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(layers)
