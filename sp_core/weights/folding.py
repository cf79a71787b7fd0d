"""Folding a layer and a whole network, each step measured: the same outputs from fewer operations.

A DiracNet is trained with its identity and BatchNorm apart and run as a plain chain of convolutions (Zagoruyko and
Komodakis 2017, arXiv:1706.00388). Any convolution can be written so, and any BatchNorm after one can be folded; what
rounding makes of it is measured here rather than promised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations import Step, fold, fold_norms, folding_steps, own_parts
from sp_core.parameterizations.dirac import centred
from sp_core.parameterizations.folding import pairs
from sp_core.weights.trial import layer_input


@dataclass(frozen=True, eq=False)
class Folding:
    """One layer, folded step by step.

    Attributes:
        layer: its name. norm: that of the BatchNorm that reads nothing else, or None.
        steps: see :class:`~sp_core.parameterizations.Step`.
        differences: for each step, the largest absolute difference of the layer's outputs (after BatchNorm where there
            is one), computed that way in float32, from those of the network as it is; empty where nothing was run.
        largest: the largest absolute output.
        a, b: of ``diag(a) I + diag(b) W / ‖W‖``, float64 ``[out]``.
        trained: whether a and b are parameters of the layer, as in a DiracNet; else they are read off the weight.
    """

    layer: str
    norm: str | None
    steps: tuple[Step, ...]
    differences: tuple[float, ...]
    largest: float
    a: Tensor
    b: Tensor
    trained: bool


def folding(net: Network, layer: str, image: Tensor | None = None) -> Folding:
    """Fold ``layer``, a convolution with an odd kernel and one group; on ``image`` ``[1, c, h, w]`` in [0, 1] each step
    is run. Without an image there is only the arithmetic, and no BatchNorm is looked for.

    Raises:
        SpError: there is no such convolution, it has groups or an even kernel, or it does not run on the image.

    >>> layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    >>> found = folding(Network(nn.Sequential(*layers), name="two", input_size=(3, 8, 8)), "0", torch.rand(1, 3, 8, 8))
    >>> found.norm, len(found.steps), max(found.differences) < 1e-5
    ('1', 5, True)
    """
    conv = dict(net.module.named_modules()).get(layer)
    weight = getattr(conv, "weight", None)
    if conv is None or not isinstance(weight, Tensor) or weight.ndim < 3 or getattr(conv, "groups", 1) != 1:
        raise SpError(f"{layer} is no convolution with one group, so there is no identity to fold; choose another.")
    _, a, b, trained = own_parts(conv)
    if image is None:
        return Folding(layer, None, folding_steps(conv), (), 0.0, a, b, trained)
    name = dict(pairs(net.module, net.normalise(net.check_images(image)))).get(layer)
    norm = net.module.get_submodule(name) if name is not None else None
    steps = folding_steps(conv, norm)
    inputs = layer_input(net, layer, image)
    with torch.no_grad():
        wanted = conv(inputs) if norm is None else norm(conv(inputs))
        made = [_run(conv, step, norm, inputs) for step in steps]
    differences = tuple(float((own - wanted).abs().max()) for own in made)
    return Folding(layer, name, steps, differences, float(wanted.abs().max()), a, b, trained)


def _run(conv: nn.Module, step: Step, norm: nn.Module | None, inputs: Tensor) -> Tensor:
    """The layer's output by one step: its weight, and what is still apart."""
    plain: Any = fold(conv)
    plain.register_parameter("bias", None)

    def convolved(weight: Tensor) -> Tensor:
        plain.weight = nn.Parameter(weight.to(inputs), requires_grad=False)
        return plain(inputs)

    def along(values: Tensor) -> Tensor:
        return values.to(inputs).view(-1, *[1] * (step.weight.ndim - 2))

    output = convolved(step.weight)
    if step.scale is not None:
        output = output * along(step.scale)
    if step.identity is not None:
        eye = torch.eye(*step.weight.shape[:2], dtype=step.identity.dtype, device=step.identity.device)
        output = output + convolved(centred(step.identity[:, None] * eye, tuple(step.weight.shape[2:])))
    if step.bias is not None:
        output = output + along(step.bias)
    return norm(output) if norm is not None and step.norm else output


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A whole network after folding.

    Attributes:
        network: parametrised weights are plain ones, and BatchNorms that read one convolution are in its weight.
        parameters, parameters_before: numbers that are stored, buffers of BatchNorm not counted.
        norms, norms_before: BatchNorms that are left, and that there were.
        difference: largest absolute difference of the outputs on one image; largest: the largest absolute output.
    """

    network: Network
    parameters: int
    parameters_before: int
    norms: int
    norms_before: int
    difference: float
    largest: float


def folded(net: Network, image: Tensor) -> FoldedNetwork:
    """Fold every parametrisation and every BatchNorm of ``net``; measured on ``image`` ``[1, c, h, w]`` in [0, 1].

    >>> layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> made = folded(Network(nn.Sequential(*layers), name="two", input_size=(3, 8, 8)), torch.rand(1, 3, 8, 8))
    >>> made.norms, made.norms_before, made.parameters, made.parameters_before
    (0, 1, 402, 406)
    """
    module = fold_norms(net.module, net.input_size)
    small = replace(net, module=module, name=f"{net.name}, folded", architecture=None, source=f"{net.source}, folded")
    inputs = net.normalise(net.check_images(image))
    with torch.no_grad():
        before, after = (_tensors(own(inputs)) for own in (net.module, module))
    return FoldedNetwork(
        small,
        parameters=sum(part.numel() for part in module.parameters()),
        parameters_before=sum(part.numel() for part in net.module.parameters()),
        norms=_norms(module),
        norms_before=_norms(net.module),
        difference=max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)),
        largest=max(float(b.abs().max()) for b in before),
    )


def _norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def _tensors(output: Any) -> list[Tensor]:
    rows = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else [output]
    return [row for row in rows if isinstance(row, Tensor)]
