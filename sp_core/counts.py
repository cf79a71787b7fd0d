"""How large a network is and how much it computes: parameters and multiply-accumulates.

One multiply-accumulate (MAC) is one product that is added to a sum. Only convolutions and products of matrices are
counted (linear layers and attention are such products), without biases: additions, activations, normalisation and
pooling are not. It is the convention of torchvision's published figures ("GFLOPS" there are 10⁹ MACs); a FLOP count
in the sense of "one multiplication, one addition" is twice as much. Counters that also count normalisation or biases
give 1 % to 11 % more.

The operations are seen below autograd by a dispatch mode on the *meta* device, as torch's own ``FlopCounterMode`` does,
so functional spellings count as well, and nothing is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sp_core.network import Network
from sp_core.trace import LayerNames, layer_name, private_copy

# Operations that multiply and add, but that nobody has agreed how to count.
UNCOUNTED = ("_fft", "_cdist", "cdist", "_trilinear", "grid_sampler", "cudnn_grid_sampler", "_embedding_bag", "lstm")


@dataclass(frozen=True)
class LayerCount:
    """What one call of one layer costs, its parts included.

    Attributes:
        parameters: elements of its unique weights and biases; 0 for the second call of a shared module.
        macs: multiply-accumulates for one image.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one image of its input size.

    Attributes:
        parameters: elements of all unique parameter tensors, also of parts that do not run (auxiliary heads).
        macs: multiply-accumulates of convolutions and products of matrices; ×2 for FLOPs.
        status: ``"complete"``, or ``"partial"`` when an operation that computes could not be counted: see ``skipped``.
        per_layer: every layer's share by name, in execution order; a container's share is that of its parts together.
        buffers: elements of tensors that are no parameters, such as running means.
        skipped: names of the operations left out, with how often they ran.
        input_size: the ``(c, h, w)`` it was counted for.
    """

    parameters: int
    macs: int
    status: str
    per_layer: dict[str, LayerCount] = field(default_factory=dict)
    buffers: int = 0
    skipped: tuple[str, ...] = ()
    input_size: tuple[int, int, int] = (3, 224, 224)


class _Counter(TorchDispatchMode):
    """Adds each operation's multiply-accumulates to all modules that are running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[list[int]] = [[0]]  # one box a module call, the whole network first
        self.skipped: dict[str, int] = {}

    @property
    def total(self) -> int:
        return self.running[0][0]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        name = function._schema.name.split("::")[1]
        if count is not None:
            macs = count(*args, **(kwargs or {}), out_val=out) // 2
            for box in self.running:
                box[0] += macs
        elif function.namespace not in {"aten", "prim", "prims"} or name.startswith(UNCOUNTED):
            self.skipped[name] = self.skipped.get(name, 0) + 1
        return out


def parameter_count(module: nn.Module) -> int:
    """Elements of the unique parameter tensors of ``module`` and its parts.

    >>> parameter_count(nn.Linear(10, 3))
    33
    """
    return sum(parameter.numel() for parameter in {id(p): p for p in module.parameters()}.values())


def complexity(net: Network) -> Complexity:
    """Parameters and multiply-accumulates of ``net`` for one image of ``net.input_size``, layer by layer.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), input_size=(3, 4, 4))
    >>> answer = complexity(net)
    >>> answer.parameters, answer.macs, answer.per_layer["0"].macs
    (224, 3456, 3456)
    """
    layers = net.layers  # says what is wrong when the network does not run at all
    dtype = next((p.dtype for p in net.module.parameters() if p.is_floating_point()), torch.float32)
    try:
        counter, macs = _count(private_copy(net.module, to="meta"), _image(net, "meta", dtype))
    except Exception:  # noqa: BLE001 - control flow that looks at values cannot run without them
        counter, macs = _count(net.clone(), _image(net, net.device, dtype))
    modules = dict(net.module.named_modules())
    per_layer = {}
    for layer in layers:
        own = parameter_count(modules[layer.module]) if layer.call == 1 else 0
        per_layer[layer.name] = LayerCount(own, macs.get(layer.name, 0))
    skipped = tuple(f"{name} (×{times})" for name, times in sorted(counter.skipped.items()))
    return Complexity(
        parameters=parameter_count(net.module),
        macs=counter.total,
        status="partial" if skipped else "complete",
        per_layer=per_layer,
        buffers=sum(buffer.numel() for buffer in {id(b): b for b in net.module.buffers()}.values()),
        skipped=skipped,
        input_size=net.input_size,
    )


def _image(net: Network, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, *net.input_size, device=device, dtype=dtype)


def _count(clone: nn.Module, image: Tensor) -> tuple[_Counter, dict[str, int]]:
    """Run ``clone`` (a private copy) once; the counter, and the multiply-accumulates of each module call by name."""
    counter, names, found = _Counter(), LayerNames(clone), {}

    def begin(_part: nn.Module, _inputs: Any) -> None:
        counter.running.append([0])

    def end(part: nn.Module, _inputs: Any, _output: Any) -> None:
        found[layer_name(*names.next(part))] = counter.running.pop()[0]

    for part in clone.modules():
        part.register_forward_pre_hook(begin)
        part.register_forward_hook(end)
    with torch.no_grad(), counter:
        clone(image)
    return counter, found


def in_words(count: int) -> str:
    """A large count as a person says it: ``"11.7 million"``, ``"1.81 billion"``, ``"9,408"``.

    >>> in_words(11_689_512), in_words(1_814_073_344), in_words(224)
    ('11.7 million', '1.81 billion', '224')
    """
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:,}"
