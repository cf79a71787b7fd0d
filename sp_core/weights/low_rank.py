"""One layer rebuilt at low rank: what is lost, what is saved, and the small layers that do the work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations.factored import small_layers
from sp_core.parameterizations.low_rank import kernels, ranks, stages
from sp_core.parameterizations.schemes import SCHEMES, Scheme, Stage, compose
from sp_core.trace import private_copy
from sp_core.weights.matrices import find, weights


@dataclass(frozen=True, eq=False)
class Site:
    """A layer that can be rebuilt, and the sizes of what goes through it.

    Attributes:
        layer: its name.
        module: the layer itself, shared with the network; not to be changed.
        weight: float64 ``[out, in, h, w]`` on the CPU; of a linear layer ``[out, in, 1, 1]``.
        input_shape, output_shape: without the batch, of the network's own input size.
    """

    layer: str
    module: nn.Module
    weight: Tensor
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the original layer for one image."""
        return self.weight.numel() * math.prod(self.output_shape[1:])

    @property
    def parameters(self) -> int:
        """Weights of the original layer, without the bias."""
        return self.weight.numel()


def site(net: Network, layer: str) -> Site:
    """The layer to rebuild; raises SpError for a grouped or transposed convolution, or none at all.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> site(net, "0").output_shape, site(net, "0").macs
    ((4, 6, 6), 3888)
    """
    row = find(net, layer)
    module = net.module.get_submodule(row.layer)
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        raise SpError(f"{row.layer} is a {row.kind}; only Conv2d and Linear layers are rebuilt at low rank here.")
    if row.groups != 1:
        raise SpError(
            f"{row.layer} has {row.groups} groups: its matrix is block-diagonal already, and the schemes here are for "
            "full convolutions. Choose a layer with one group."
        )
    if not row.runs:
        raise SpError(f"{row.layer} does not run in evaluation, so there is nothing to measure; choose another layer.")
    weight = row.tensor.detach().to("cpu", torch.float64)
    if not bool(weight.isfinite().all()) or not bool(weight.any()):
        raise SpError(f"The weights of {row.layer} are all zero or not finite; there is nothing to rebuild.")
    inputs, outputs = _shapes(net, row.layer)
    return Site(row.layer, module, weight if weight.ndim == 4 else weight[:, :, None, None], inputs, outputs)


def rebuildable(net: Network) -> tuple[str, ...]:
    """The layers that :func:`site` takes, in execution order; raises SpError when there is none.

    >>> rebuildable(Network(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 4, 1)), name="two",
    ...                     input_size=(3, 8, 8)))
    ('1',)
    """
    kinds = (nn.Conv2d, nn.Linear)
    names = tuple(
        row.layer
        for row in weights(net)
        if row.runs and row.groups == 1 and isinstance(net.module.get_submodule(row.layer), kinds)
    )
    if not names:
        raise SpError(f"{net.name} has no ungrouped Conv2d and no Linear layer, so there is nothing to rebuild.")
    return names


def _shapes(net: Network, layer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what goes into and comes out of the layer's first call."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def note(_part: nn.Module, inputs: Any, output: Tensor) -> None:
        found.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    for to, device in (("meta", torch.device("meta")), (None, net.device)):  # real numbers if shapes are not enough
        clone = private_copy(net.module, to=to)
        clone.get_submodule(layer).register_forward_hook(note)
        try:
            with torch.no_grad():
                clone.eval()(torch.zeros(1, *net.input_size, device=device))
            return found[0]
        except Exception:  # noqa: BLE001 - a network may do anything on the meta device
            continue
    raise SpError(f"{layer} could not be reached by a forward pass of {net.name}.")


def available(place: Site) -> tuple[str, ...]:
    """The schemes that do something for this layer: a linear layer or a 1×1 convolution has only its SVD."""
    return tuple(SCHEMES) if math.prod(place.weight.shape[2:]) > 1 else ("svd",)


def _scheme(place: Site, name: str) -> Scheme:
    if name not in available(place):
        raise SpError(f"The scheme for {place.layer} must be one of {', '.join(available(place))}; got '{name}'.")
    return SCHEMES[name]


@dataclass(frozen=True, eq=False)
class Curve:
    """What each rank loses and costs.

    Attributes:
        scheme: its name; layer: the layer's.
        errors: ``‖W - Ŵ‖_F / ‖W‖_F`` at ranks 1, 2, …; float64 ``[ranks]``, falling, 0 at the last.
        parameters: free weights at each rank, without the bias; int64 ``[ranks]``.
        macs: multiply-accumulates for one image; int64 ``[ranks]``.
    """

    scheme: str
    layer: str
    errors: Tensor
    parameters: Tensor
    macs: Tensor

    def rank_within(self, error: float) -> int:
        """The lowest rank whose relative error is at most ``error``."""
        return int((self.errors > error).sum()) + 1


def curve(place: Site, scheme: str) -> Curve:
    """Error, parameters and multiply-accumulates of a scheme at every rank, from one decomposition.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> row = curve(site(net, "0"), "svd")
    >>> len(row.errors), float(row.errors[-1])
    (4, 0.0)
    """
    how = _scheme(place, scheme)
    shape = tuple(place.weight.shape)
    left = how.left(place.weight)[: how.ranks(shape)]
    costs = [_cost(place, how.stages(shape, rank)) for rank in range(1, len(left) + 1)]
    return Curve(
        scheme,
        place.layer,
        (left / place.weight.square().sum()).clamp(0, 1).sqrt(),
        torch.tensor([parameters for parameters, _ in costs]),
        torch.tensor([macs for _, macs in costs]),
    )


def curves(place: Site) -> list[Curve]:
    """:func:`curve` for every scheme that the layer can have and whose decomposition is not too large.

    Raises:
        SpError: none is small enough.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> [row.scheme for row in curves(site(net, "0"))]
    ['svd', 'separable', 'basis', 'tucker']
    """
    found, refusal = [], None
    for name in available(place):
        try:
            found.append(curve(place, name))
        except SpError as error:  # too large for this scheme, maybe not for the next
            refusal = error
    if not found and refusal is not None:
        raise refusal
    return found


def _cost(place: Site, stages: list[Stage]) -> tuple[int, int]:
    """Parameters and multiply-accumulates; rows and columns shrink where the stage with that stride is."""
    if len(place.input_shape) != 3:  # a linear layer: one position, or as many as its input has
        positions = math.prod(place.output_shape[:-1])
        return sum(stage.parameters for stage in stages), positions * sum(stage.macs for stage in stages)
    high, wide = place.input_shape[1:]
    parameters = macs = 0
    for stage in stages:
        high = place.output_shape[1] if stage.how in {"full", "column"} else high
        wide = place.output_shape[2] if stage.how in {"full", "row"} else wide
        parameters += stage.parameters
        macs += stage.macs * high * wide
    return parameters, macs


@dataclass(frozen=True, eq=False)
class Factored:
    """One layer at one rank.

    Attributes:
        scheme, layer, rank: what was asked for.
        weight: the rebuilt weight, float64, the shape of :attr:`Site.weight`.
        error: ``‖W - Ŵ‖_F / ‖W‖_F``, measured on ``weight``.
        parameters: free weights, without the bias, which stays as it is. The shared kernels of ``basis`` count once,
            though its layers hold a copy for every channel.
        macs: multiply-accumulates for one image.
        kernels: the weights of the layers, in order.
        layers: the sequence of small layers, float32, whose output is that of the layer with the rebuilt weight.
    """

    scheme: str
    layer: str
    rank: int
    weight: Tensor
    error: float
    parameters: int
    macs: int
    kernels: list[Tensor]
    layers: nn.Sequential


def factor(place: Site, scheme: str, rank: int) -> Factored:
    """The layer rebuilt at ``rank`` by ``scheme``: one of :func:`available`, or ``"cp"`` where there are k×k kernels.

    Raises:
        SpError: the rank or the scheme does not exist for this layer.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> one = factor(site(net, "0"), "separable", 2)
    >>> [tuple(part.kernel_size) for part in one.layers], one.parameters
    ([(3, 1), (1, 3)], 42)
    """
    if scheme != "cp" or available(place) == ("svd",):  # cp has no curve: every rank is a search of its own
        _scheme(place, scheme)
    shape = tuple(place.weight.shape)
    top = ranks(shape, scheme)
    if not 1 <= rank <= top:
        raise SpError(f"The rank of {place.layer} under '{scheme}' is from 1 to {top}; got {rank}.")
    made = kernels(place.weight, scheme, rank)
    steps = stages(shape, scheme, rank)
    weight = compose(made, [step.groups for step in steps])
    parameters, macs = _cost(place, steps)
    error = float((weight - place.weight).norm() / place.weight.norm())
    layers = small_layers(place.module, made, steps)
    return Factored(scheme, place.layer, rank, weight, error, parameters, macs, made, layers)
