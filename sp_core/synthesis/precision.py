"""Quick steps: a private copy of the network that computes the same with less reading and writing, and in bfloat16.

What a step of gradient ascent costs beside its products is maps that are written and read again. So normalisations are
folded into the convolutions before them, and on the CPU pictures and weights lie channels last, as its kernels want
them: the same function up to rounding, with less to do.

A step asks only for a direction, of which the transforms change far more than rounding does. So on processors that
multiply in bfloat16 its products are computed with 8 significant bits (Micikevicius et al. 2018, "Mixed precision
training"); the picture itself, its parameters, the objective and Adam stay in float32. Whatever the steps were computed
with, what was reached is measured at the end on the network as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.relations import relations
from sp_core.trace import input_dtype

PRODUCTS = 90  # a value that is written, on average; with fewer, bfloat16 is slower: it is the maps that take the time
SAME = 1e-3  # relative: a folded network differs by rounding, a wrongly folded one by much more
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def quick_runner(net: Network, precision: str, layers: Iterable[str], size: tuple[int, int]) -> Runner:
    """What computes the steps: for ``"auto"`` in bfloat16 where that is fast, on CPUs with instructions for it.

    It is tried forward and backward on a random picture of ``size`` (h, w): where an operation of the network does not
    take bfloat16, ``"auto"`` stays with float32, and where one does not take pictures that lie channels last, with the
    network as it is. So do networks of another precision, and on a GPU those in float32.

    Raises:
        SpError: ``"bfloat16"`` was asked for, which the network does not run in.
    """
    layers, on_cpu = list(layers), net.device.type == "cpu"
    if input_dtype(net.module) != torch.float32:
        if precision == "bfloat16":
            raise _not_in_bfloat16(net, f"its weights are {input_dtype(net.module)}")
        return Runner(net)
    if precision == "bfloat16" or (precision == "auto" and on_cpu and _multiplies_bfloat16() and _is_dense(net)):
        try:
            return _tried(Runner(net, low=True), layers, size)
        except RuntimeError as error:
            if precision == "bfloat16":
                raise _not_in_bfloat16(net, str(error).splitlines()[0]) from error
    if on_cpu:
        with suppress(RuntimeError):
            return _tried(Runner(net), layers, size)
    return Runner(net)


def _tried(runner: Runner, layers: list[str], size: tuple[int, int]) -> Runner:
    """``runner``, prepared, after a pass forward and backward; raises RuntimeError where it cannot."""
    shape, generator = (1, runner.net.input_size[0], *size), torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator).to(runner.net.device)
    runner.prepare(image, layers)
    maps = runner(image.requires_grad_(), layers)
    torch.autograd.grad([map_.sum() for map_ in maps.values() if map_.requires_grad], image, allow_unused=True)
    return runner


def _not_in_bfloat16(net: Network, why: str) -> SpError:
    return SpError(f"{net.name} cannot be run in bfloat16 ({why}); choose the precision float32 or auto.")


def _multiplies_bfloat16() -> bool:
    """Whether the processor does: by matrix units (AMX) or by vectors (AVX512-BF16)."""
    asked = (getattr(torch.cpu, f"_is_{what}_supported", None) for what in ("amx_tile", "avx512_bf16"))
    return any(ask is not None and ask() for ask in asked)


def _is_dense(net: Network) -> bool:
    """Whether products take more time than maps, as they do unless most convolutions are one channel deep.

    Measured on a processor with AVX512-BF16: with 40 to 74 products a value (MobileNets, MnasNets, EfficientNet-B0,
    ShuffleNet) bfloat16 takes 1.1 to 1.4 times as long as float32, with 103 and more (RegNet-400MF) 0.3 to 0.8 times.
    """
    products, values = 0.0, 0
    for layer in net.layers:
        part = net.module.get_submodule(layer.module)
        wide = getattr(part, "out_channels", getattr(part, "out_features", 0))
        if type(part) in _WEIGHTED and isinstance(part.weight, Tensor):
            count = math.prod(layer.output_shape)
            values += count
            products += count * part.weight.numel() / int(wide)
    return products >= PRODUCTS * values


class Runner:
    """Runs one private copy of a network as far as some layers, in float32 or with its products in bfloat16.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_size=(3, 8, 8))
    >>> images = torch.rand(2, 3, 8, 8)
    >>> exact, rough = (Runner(net, low)(images, ["1"])["1"] for low in (False, True))
    >>> rough.dtype, bool((exact - rough).abs().max() < 0.02)
    (torch.bfloat16, True)
    """

    def __init__(self, net: Network, low: bool = False) -> None:
        self.net, self.low = net, low
        self._clone = net.clone()
        self._dtype = input_dtype(net.module)
        self.prepared = False

    @property
    def exact(self) -> bool:
        """Whether it computes what the network does to the last bit."""
        return not (self.low or self.prepared)

    def prepare(self, images: Tensor, layers: Iterable[str]) -> None:
        """Make the copy quick, before its first pass: normalisations folded, weights rounded and channels last.

        A convolution may be read by others than the normalisation that follows it. So the folded copy is used only if
        it gives the same ``layers`` of ``images``, in float32.

        Raises:
            RuntimeError: an operation does not take pictures that lie channels last.
        """
        folded = _folded(self.net, layers)
        inputs = self.net.normalise(images)
        with torch.no_grad():
            one = capture(self._clone, inputs, layers)
            other = capture(folded, inputs.contiguous(memory_format=torch.channels_last), layers)
        if all((one[name] - other[name]).norm() <= SAME * one[name].norm() for name in one):
            self._clone = folded
        _lay_out(self._clone, torch.bfloat16 if self.low else torch.float32)
        self.prepared = True

    @property
    def precision(self) -> str:
        """``"bfloat16"``, ``"float32"`` …: what the products are computed in."""
        return "bfloat16" if self.low else str(self._dtype).removeprefix("torch.")

    def __call__(self, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The outputs of ``layers`` for images ``[n, c, h, w]`` in [0, 1], differentiable, as they were computed."""
        layout = torch.contiguous_format if self.exact else torch.channels_last
        inputs = self.net.normalise(images.to(self._dtype)).contiguous(memory_format=layout)
        if not self.low:
            return capture(self._clone, inputs, layers)
        # Of this thread alone. Rounded weights are not looked up in its cache: they are rounded once, at the start.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return capture(self._clone, inputs, layers)


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


def _lay_out(clone: nn.Module, dtype: torch.dtype) -> None:
    """Give convolutions and linear layers of a private copy weights of their own: in ``dtype``, channels last.

    Normalisations keep float32 statistics; a weight that is computed anew each time is rounded each time.
    """
    for part in clone.modules():
        if type(part) in _WEIGHTED:
            for name, weight in list(part.named_parameters(recurse=False)):
                layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
                own = weight.detach().to(dtype, memory_format=layout)
                setattr(part, name, nn.Parameter(own, requires_grad=False))
