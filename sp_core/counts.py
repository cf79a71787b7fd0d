"""How large a network is and how much it computes: parameters and multiply-accumulates.

One multiply-accumulate (MAC) is one product that is added to a sum. Only convolutions and products of matrices are
counted (linear layers and attention are such products), without biases: additions, activations, normalisation and
pooling are not. It is the convention of torchvision's published figures ("GFLOPS" there are 10⁹ MACs); a FLOP count
in the sense of "one multiplication, one addition" is twice as much. Counters that also count normalisation or biases
give 1 % to 11 % more.

Papers count differently, and most figures that "do not reproduce" were counted by another rule. Three rules are known
here (``convention=``), each reproduces its authors' tables to the integer:

``"torch"``: the one above. Parameters are all trained numbers, those of normalisation included.

``"ioannou"``: one addition more for each *output channel* with a bias (not for each of its positions), and parameters
without those of normalisation layers (Ioannou, "Structural priors in deep neural networks", thesis, Cambridge 2017: the
tables of the low-rank, root and conditional networks).

``"author"``: the FLOPs of the CondenseNet and MSDNet papers, as their published counters add them up: multiply-
accumulates of convolutions and linear layers, the biases of linear layers, one operation for each element that enters a
ReLU, and the window's area for each output of a pooling (Huang et al., CVPR 2018 and ICLR 2018).

The operations are seen below autograd by a dispatch mode on the *meta* device, as torch's own ``FlopCounterMode`` does,
so functional spellings count as well, and nothing is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.trace import LayerNames, layer_name, private_copy, weight_makers

# Operations that multiply and add, but that nobody has agreed how to count.
UNCOUNTED = ("_fft", "_cdist", "cdist", "_trilinear", "grid_sampler", "cudnn_grid_sampler", "_embedding_bag", "lstm")

Convention = Literal["torch", "ioannou", "author"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)
_NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class LayerCount:
    """What one call of one layer costs, its parts included.

    Attributes:
        parameters: elements of its unique weights and biases; 0 for the second call of a shared module.
        macs: multiply-accumulates for one image, counted by the convention of the answer it is part of.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one image of its input size.

    Attributes:
        parameters: elements of all unique parameter tensors, also of parts that do not run (auxiliary heads).
        macs: multiply-accumulates of convolutions and products of matrices; ×2 for FLOPs. With the convention
            ``"ioannou"`` or ``"author"``, what these add to them as well.
        status: ``"complete"``, or ``"partial"`` when an operation that computes could not be counted: see ``skipped``.
        per_layer: every layer's share by name, in execution order; a container's share is that of its parts together.
        buffers: elements of tensors that are no parameters, such as running means.
        skipped: names of the operations left out, with how often they ran.
        input_size: the ``(c, h, w)`` it was counted for.
        convention: by which rule: ``"torch"``, ``"ioannou"`` or ``"author"`` (see the module).
    """

    parameters: int
    macs: int
    status: str
    per_layer: dict[str, LayerCount] = field(default_factory=dict)
    buffers: int = 0
    skipped: tuple[str, ...] = ()
    input_size: tuple[int, int, int] = (3, 224, 224)
    convention: str = "torch"


class _Counter(TorchDispatchMode):
    """Adds each operation's multiply-accumulates to all modules that are running."""

    def __init__(self, convention: str) -> None:
        super().__init__()
        self.convention = convention
        self.running: list[list[int]] = [[0]]  # one box a module call, the whole network first
        self.skipped: dict[str, int] = {}
        self.making_weights = False

    @property
    def total(self) -> int:
        return self.running[0][0]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if self.making_weights:  # arithmetic on the weights, done once for all images
            return out
        count = flop_registry.get(function._overloadpacket)
        name = function._schema.name.split("::")[1]
        extra = _extra(self.convention, name, args, out)
        if count is not None or extra:
            macs = count(*args, **(kwargs or {}), out_val=out) // 2 if count is not None else 0
            for box in self.running:
                box[0] += macs + extra
        elif function.namespace not in {"aten", "prim", "prims"} or name.startswith(UNCOUNTED):
            self.skipped[name] = self.skipped.get(name, 0) + 1
        return out


def _extra(convention: str, name: str, args: Any, out: Any) -> int:
    """What ``convention`` counts of one operation beyond its multiply-accumulates."""
    if convention == "ioannou":
        if name.startswith("convolution"):
            return args[2].numel() if args[2] is not None else 0
        return args[0].numel() if name == "addmm" and args[0].ndim == 1 else 0
    if convention == "author":
        if name == "addmm" and args[0].ndim == 1:
            return out.numel()
        if name in {"relu", "relu_"}:
            return args[0].numel()
        if name in {"avg_pool2d", "max_pool2d_with_indices"}:
            window = args[1] if len(args[1]) > 1 else [args[1][0]] * 2
            return (out if isinstance(out, Tensor) else out[0]).numel() * math.prod(window)
        if name in {"mean", "_adaptive_avg_pool2d"} and args[0].ndim == 4:  # global: every element is in one window
            return args[0].numel()
    return 0


def parameter_count(module: nn.Module, convention: Convention = "torch") -> int:
    """Elements of the unique parameter tensors of ``module`` and its parts.

    >>> parameter_count(nn.Linear(10, 3))
    33
    """
    found = {id(p): p for p in module.parameters()}
    if convention == "ioannou":
        for part in module.modules():
            if isinstance(part, _NORMALISATION):
                for parameter in part.parameters(recurse=False):
                    found.pop(id(parameter), None)
    return sum(parameter.numel() for parameter in found.values())


def complexity(net: Network, convention: Convention = "torch") -> Complexity:
    """Parameters and multiply-accumulates of ``net`` for one image of ``net.input_size``, layer by layer.

    ``convention`` is the rule of counting: ``"torch"``, ``"ioannou"`` or ``"author"``; the module's text says what each
    adds.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), input_size=(3, 4, 4))
    >>> answer = complexity(net)
    >>> answer.parameters, answer.macs, answer.per_layer["0"].macs
    (224, 3456, 3456)
    >>> complexity(net, "ioannou").macs, complexity(net, "author").macs  # 8 biases; 8 · 4 · 4 elements into a ReLU
    (3464, 3584)
    """
    if convention not in CONVENTIONS:
        raise SpError(f"'{convention}' is not a convention of counting; choose one of: {', '.join(CONVENTIONS)}.")
    layers = net.layers  # says what is wrong when the network does not run at all
    dtype = next((p.dtype for p in net.module.parameters() if p.is_floating_point()), torch.float32)
    try:
        counter, macs = _count(private_copy(net.module, to="meta"), _image(net, "meta", dtype), convention)
    except Exception:  # noqa: BLE001 - control flow that looks at values cannot run without them
        counter, macs = _count(net.clone(), _image(net, net.device, dtype), convention)
    modules = dict(net.module.named_modules())
    per_layer = {}
    for layer in layers:
        own = parameter_count(modules[layer.module], convention) if layer.call == 1 else 0
        per_layer[layer.name] = LayerCount(own, macs.get(layer.name, 0))
    skipped = tuple(f"{name} (×{times})" for name, times in sorted(counter.skipped.items()))
    return Complexity(
        parameters=parameter_count(net.module, convention),
        macs=counter.total,
        status="partial" if skipped else "complete",
        per_layer=per_layer,
        buffers=sum(buffer.numel() for buffer in {id(b): b for b in net.module.buffers()}.values()),
        skipped=skipped,
        input_size=net.input_size,
        convention=convention,
    )


def _image(net: Network, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, *net.input_size, device=device, dtype=dtype)


def _count(clone: nn.Module, image: Tensor, convention: str) -> tuple[_Counter, dict[str, int]]:
    """Run ``clone`` (a private copy) once; the counter, and the multiply-accumulates of each module call by name."""
    counter, names, found = _Counter(convention), LayerNames(clone), {}

    def begin(_part: nn.Module, _inputs: Any) -> None:
        counter.running.append([0])

    def end(part: nn.Module, _inputs: Any, _output: Any) -> None:
        found[layer_name(*names.next(part))] = counter.running.pop()[0]

    def pause(part: nn.Module, *_rest: Any) -> None:
        counter.making_weights = not counter.making_weights

    makers = weight_makers(clone)
    for part in clone.modules():
        if isinstance(part, ParametrizationList):
            part.register_forward_pre_hook(pause)
            part.register_forward_hook(pause)
        elif id(part) not in makers:
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


def short(count: int) -> str:
    """A large count where there is little room: ``"11.7 M"``.

    >>> short(11_689_512), short(1_814_073_344), short(224)
    ('11.7 M', '1.81 G', '224')
    """
    return in_words(count).replace(" million", " M").replace(" billion", " G")
