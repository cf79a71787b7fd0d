"""Steps in bfloat16: half the bytes, and on processors with matrix units several times the speed.

A step of gradient ascent asks only for a direction, of which the transforms change far more than rounding does. So the
convolutions and matrix products of a step may be computed with 8 significant bits (Micikevicius et al. 2018, "Mixed
precision training"); the picture itself, its parameters, the objective and Adam stay in float32, and what was reached
is measured in float32 at the end. Pictures lie channels last, as the kernels for bfloat16 want them, and normalisations
are folded into the convolutions before them, because what is left of a step's time is reading and writing maps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.relations import relations
from sp_core.trace import input_dtype

SAME = 1e-3  # relative: a folded network differs by rounding, a wrongly folded one by much more
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def quick_runner(net: Network, precision: str, layers: Iterable[str], size: tuple[int, int]) -> Runner:
    """What computes the steps: for ``"auto"`` in bfloat16 where that is fast, on CPUs with matrix units (AMX).

    It is tried forward and backward on a random picture of ``size`` (h, w): where an operation of the network does not
    take bfloat16, ``"auto"`` stays with the network's own precision.

    Raises:
        SpError: ``"bfloat16"`` was asked for, which the network does not run in.
    """
    auto = precision == "auto"
    if precision == "float32" or (auto and not (net.device.type == "cpu" and _has_matrix_units())):
        return Runner(net, low=False)
    why = f"its weights are {input_dtype(net.module)}"
    if input_dtype(net.module) == torch.float32:
        shape = (1, net.input_size[0], *size)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(net.device)
        try:
            runner = Runner(net, low=True)
            runner.prepare(image, layers)
            maps = runner(image.requires_grad_(), layers)
            torch.autograd.grad([map_.sum() for map_ in maps.values() if map_.requires_grad], image, allow_unused=True)
            return runner
        except RuntimeError as error:
            why = str(error).splitlines()[0]
    if auto:
        return Runner(net, low=False)
    raise SpError(f"{net.name} cannot be run in bfloat16 ({why}); choose the precision float32 or auto.")


def _has_matrix_units() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


class Runner:
    """Runs one private copy of a network as far as some layers, in float32 or with its products in bfloat16.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_size=(3, 8, 8))
    >>> images = torch.rand(2, 3, 8, 8)
    >>> exact, rough = (Runner(net, low)(images, ["1"])["1"] for low in (False, True))
    >>> rough.dtype, bool((exact - rough).abs().max() < 0.02)
    (torch.bfloat16, True)
    """

    def __init__(self, net: Network, low: bool) -> None:
        self._net, self.low = net, low
        self._clone = net.clone()
        self._dtype = input_dtype(net.module)

    def prepare(self, images: Tensor, layers: Iterable[str]) -> None:
        """Make a rough runner's copy quick, before its first pass: normalisations folded, weights rounded.

        A convolution may be read by others than the normalisation that follows it. So the folded copy is used only if
        it gives the same ``layers`` of ``images``, in float32.
        """
        folded = _folded(self._net, layers)
        inputs = self._net.normalise(images)
        with torch.no_grad():
            one, other = capture(self._clone, inputs, layers), capture(folded, inputs, layers)
        if all((one[name] - other[name]).norm() <= SAME * one[name].norm() for name in one):
            self._clone = folded
        _round_weights(self._clone)

    @property
    def precision(self) -> str:
        """``"bfloat16"``, ``"float32"`` …: what the products are computed in."""
        return "bfloat16" if self.low else str(self._dtype).removeprefix("torch.")

    def __call__(self, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The outputs of ``layers`` for images ``[n, c, h, w]`` in [0, 1], differentiable, as they were computed."""
        inputs = self._net.normalise(images.to(self._dtype))
        if not self.low:
            return capture(self._clone, inputs, layers)
        # Of this thread alone. Rounded weights are not looked up in its cache: they are rounded once, at the start.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return capture(self._clone, inputs.contiguous(memory_format=torch.channels_last), layers)


def widened(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """``maps`` with float32 in the place of bfloat16, whose sums are too coarse for an objective."""
    return {name: map_.float() if map_.dtype == torch.bfloat16 else map_ for name, map_ in maps.items()}


def _folded(net: Network, layers: Iterable[str]) -> nn.Module:
    """A private copy without the normalisations that are given the output of a convolution, which does their work."""
    clone, calls = net.clone(), Counter(layer.module for layer in net.layers)
    for name, before in relations(net)[1].items():
        if before in layers or calls[name] != 1 or calls[before] != 1:
            continue
        norm, conv = clone.get_submodule(name), clone.get_submodule(before)
        if type(norm) is nn.BatchNorm2d and type(conv) is nn.Conv2d and norm.running_mean is not None:
            clone.set_submodule(before, fuse_conv_bn_eval(conv, norm))
            clone.set_submodule(name, nn.Identity())
    return clone


def _round_weights(clone: nn.Module) -> None:
    """Give convolutions and linear layers of a private copy rounded weights of their own.

    Normalisations keep float32 statistics; a weight that is computed anew each time is rounded each time.
    """
    for part in clone.modules():
        if type(part) in _WEIGHTED:
            for name, weight in list(part.named_parameters(recurse=False)):
                setattr(part, name, nn.Parameter(weight.to(torch.bfloat16), requires_grad=False))
