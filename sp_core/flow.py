"""Which layer feeds which: the graph of one forward pass, as a drawing needs it.

Leaf modules are nodes, and so are operations between them that a reader of a figure looks for: additions,
concatenations, products, activations, poolings that were written as functions. Everything else (reshaping, slicing,
padding) is followed through. The pass runs on empty meta tensors on a private copy, so it costs no memory and touches
nothing of the network; a dispatch mode sees every spelling of an operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.trace import LayerNames, input_dtype, layer_name, private_copy, weight_makers

INPUT = "input"
# Operations outside leaf modules that become nodes, by their name in torch's dispatcher.
JOINS = {"add": "+", "add_": "+", "cat": "concat", "mul": "×", "mul_": "×", "sub": "−", "stack": "concat"}
_OPERATIONS = {
    "relu": "ReLU", "relu_": "ReLU", "hardtanh": "ReLU6", "hardtanh_": "ReLU6", "tanh": "tanh", "sigmoid": "sigmoid",
    "leaky_relu": "leaky ReLU", "elu": "ELU", "convolution": "conv", "addmm": "linear", "mm": "linear",
    "max_pool2d_with_indices": "max pool", "avg_pool2d": "average pool", "_adaptive_avg_pool2d": "average pool",
    "mean": "mean", "amax": "maximum", "_log_softmax": "log softmax", "_softmax": "softmax",
    "upsample_nearest2d": "enlarge", "upsample_bilinear2d": "enlarge", "bmm": "matrix product",
}  # fmt: skip
_SLOW = {"aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"}


@dataclass(frozen=True)
class Node:
    """One step of the forward pass.

    Attributes:
        name: of the layer, as in :class:`sp_core.trace.Layer`; ``"input"``; or ``"+ 3"`` for the third addition.
        kind: the module's class, or the word for an operation: ``"+"``, ``"concat"``, ``"ReLU"``.
        words: how a figure calls it: ``"3×3 conv, 64"``.
        shape: of its output, without the batch.
        inside: the module calls around it, the outermost first.
        inputs: places of the nodes that feed it, in :attr:`Flow.nodes`.
        layer: whether it is a layer (a leaf module) and not an operation between layers.
    """

    name: str
    kind: str
    words: str
    shape: tuple[int, ...]
    inside: tuple[str, ...] = ()
    inputs: tuple[int, ...] = ()
    layer: bool = True


@dataclass(frozen=True)
class Flow:
    """The graph of a forward pass.

    Attributes:
        nodes: in the order of execution, the input first; each is fed by earlier ones only.
        containers: kind and output shape (``()`` where it has several) of each module call that has parts, by name.
        outputs: places of the nodes that the network's answer is made of.
    """

    nodes: tuple[Node, ...]
    containers: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()


class _Watch(TorchDispatchMode):
    """Keeps, for every tensor computed from the input, the nodes that it comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.around: list[str] = []
        self.within = 0  # leaf modules that are running
        self._from: dict[int, tuple[Tensor, frozenset[int]]] = {}  # the tensor is kept, so that its id stays its own
        self._counts: dict[str, int] = {}

    def sources(self, values: Any) -> tuple[int, ...]:
        """The nodes that the tensors in ``values`` come from, in order."""
        found = [self._from[id(t)][1] for t in tree_leaves(values) if isinstance(t, Tensor) and id(t) in self._from]
        return tuple(sorted(frozenset().union(*found)))

    def mark(self, values: Any, sources: tuple[int, ...]) -> None:
        """Say that the tensors in ``values`` come from ``sources``."""
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                self._from[id(tensor)] = (tensor, frozenset(sources))

    def add(self, node: Node) -> int:
        """A new node; its place."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            function._schema.name in _SLOW and args[0].is_meta
        ):  # its meta kernel takes longer than all the rest together
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        out = function(*args, **(kwargs or {}))
        if self.within:
            return out
        came = self.sources((args, kwargs))
        if not came:
            return out
        name = function._schema.name.split("::")[1]
        word = JOINS.get(name) if self._several(args) else _OPERATIONS.get(name)
        if word is not None:
            self._counts[word] = self._counts.get(word, 0) + 1
            first = next(t for t in tree_leaves(out) if isinstance(t, Tensor))
            title = f"{word} {self._counts[word]}"
            made = Node(title, word, word, tuple(first.shape[1:]), tuple(self.around), came, layer=False)
            came = (self.add(made),)
        self.mark(out, came)
        return out

    def _several(self, args: Any) -> bool:
        """Whether two or more tensors that come from the input, from different nodes, meet here."""
        found = [self._from[id(t)][1] for t in tree_leaves(args) if isinstance(t, Tensor) and id(t) in self._from]
        return len(set(found)) > 1


def flow(net: Network) -> Flow:
    """The graph of one forward pass of ``net`` on an input of ``net.input_size``.

    Raises:
        SpError: the network needs real numbers to run, so that it has no graph without them.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), input_size=(3, 4, 4))
    >>> [(node.name, node.words, node.inputs) for node in flow(net).nodes]
    [('input', 'input', ()), ('0', '3×3 conv, 8', (0,)), ('1', 'ReLU', (1,))]
    """
    clone = private_copy(net.module, to="meta").eval()
    watch, containers = _Watch(), {}
    names, makers = LayerNames(clone), weight_makers(clone)
    running: list[tuple[str, tuple[int, ...]]] = []

    def begin(part: nn.Module, args: Any, kwargs: Any) -> None:
        name = layer_name(*names.next(part))
        came = watch.sources((args, kwargs)) if not watch.within else ()
        running.append((name, came))
        if leaf(part):
            watch.within += 1
        elif name:
            watch.around.append(name)

    def end(part: nn.Module, _args: Any, output: Any) -> None:
        name, came = running.pop()
        tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        shape = tuple(tensors[0].shape[1:]) if tensors else ()
        kind = parametrize.type_before_parametrizations(part).__name__
        if leaf(part):
            watch.within -= 1
            if not watch.within and name:
                made = Node(name, kind, in_words(part), shape, tuple(watch.around), came)
                watch.mark(output, (watch.add(made),))
        elif name:
            watch.around.pop()
            containers[name] = kind, shape if len(tensors) == 1 else ()

    def leaf(part: nn.Module) -> bool:
        return part is not clone and all(id(child) in makers for child in part.children())

    for part in clone.modules():
        if id(part) not in makers:
            part.register_forward_pre_hook(begin, with_kwargs=True)
            part.register_forward_hook(end)
    image = torch.empty(1, *net.input_size, dtype=input_dtype(clone), device="meta")
    try:
        with torch.no_grad(), watch:
            watch.mark(image, (watch.add(Node(INPUT, INPUT, INPUT, net.input_size, layer=False)),))
            answer = clone(image)
    except Exception as error:
        raise SpError(
            f"{net.name} does not run without real numbers ({type(error).__name__}), so its graph cannot be drawn; "
            "the table of its layers can still be seen."
        ) from error
    return Flow(tuple(watch.nodes), containers, watch.sources(answer))


def in_words(module: nn.Module) -> str:
    """How a figure calls a layer.

    >>> in_words(nn.Conv2d(64, 128, 3, stride=2, groups=4)), in_words(nn.MaxPool2d(2))
    ('3×3 conv, 128, /2, 4 groups', '2×2 max pool, /2')
    """
    name = parametrize.type_before_parametrizations(module).__name__
    if isinstance(module, nn.modules.conv._ConvNd):
        depthwise = module.groups > 1 and module.groups == module.in_channels
        up = "up-conv" if "Transpose" in name else "conv"
        return (
            f"{_window(module.kernel_size)} {up}, {module.out_channels}"
            + _stride(module.stride)
            + (", depthwise" if depthwise else f", {module.groups} groups" if module.groups > 1 else "")
            + (f", dilation {max(module.dilation)}" if max(module.dilation) > 1 else "")
        )
    if isinstance(module, nn.Linear):
        return f"linear, {module.out_features}"
    if "Pool" in name:
        what = "max pool" if "Max" in name else "average pool"
        if name.startswith("Adaptive"):
            size = module.output_size
            return f"{what} to {_window(size if isinstance(size, tuple) else (size, size))}"
        sides = [getattr(module, side) for side in ("kernel_size", "stride")]
        window, stride = ((side, side) if isinstance(side, int) else tuple(side) for side in sides)
        return f"{_window(window)} {what}{_stride(stride)}"
    return {"BatchNorm2d": "BN", "BatchNorm1d": "BN", "LocalResponseNorm": "LRN", "Dropout2d": "Dropout"}.get(
        name, name
    )


def _window(size: Any) -> str:
    sides = [str(side) for side in size]
    return "×".join(sides) if len(sides) > 1 else sides[0]


def _stride(stride: Any) -> str:
    return "" if max(stride) == 1 else f", /{stride[0]}" if len(set(stride)) == 1 else f", /{_window(stride)}"
