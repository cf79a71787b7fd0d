"""The filters of a convolution: what they look like, and the facts by which they can be sorted.

A filter is one output channel's weights ``[in, h, w]``. Only the filters of a layer that reads the image itself have
colours; a filter of a deeper layer is a stack of kernels, one an input channel, without RGB meaning (Maidment, "CNNs",
"Weights in deeper layers").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sp_core.capture import activations
from sp_core.errors import SpError
from sp_core.gabor import fit_gabors
from sp_core.network import Network
from sp_core.orientation import spectral_peaks
from sp_core.stem import convolutions, find_stem, has_convolution

__all__ = [
    "DEAD", "MOST", "OPPONENT", "SCALINGS", "SORTS", "WEAK", "FilterBank", "FilterFacts", "bank", "convolutions",
    "facts", "find_stem", "first_layer", "fourier", "has_convolution", "opponent", "response", "tiles",
]  # fmt: skip

SCALINGS = ("filter", "layer")
SORTS = ("index", "orientation", "frequency", "colourfulness", "norm", "rank-1 energy")
DEAD, WEAK = 0.01, 0.1  # of the largest norm of the layer
MOST = 2**26  # weights of a layer whose facts are computed in one go
# Orthonormal opponent axes: the energies of the three channels add up to the filter's.
OPPONENT = torch.tensor(
    [[1 / math.sqrt(3)] * 3, [1 / math.sqrt(2), -1 / math.sqrt(2), 0], [-1 / math.sqrt(6)] * 2 + [2 / math.sqrt(6)]],
    dtype=torch.float64,
)


@dataclass(frozen=True)
class FilterBank:
    """The weights of one convolution.

    Attributes:
        layer: its name in the network.
        kind: ``"Conv2d"``, ``"Conv1d"`` or ``"Conv3d"``, or the class of the network's own kind of it.
        weight: float32 on the CPU, ``[out, in / groups, h, w]``; ``[out, in / groups, length]`` for Conv1d, and
            ``[out, in / groups · depth, h, w]`` for Conv3d, whose kernels are taken apart into slices.
        groups: how many groups the channels are divided into; 1 where only the weights are known.
        view: how it can be shown: ``"rgb"`` (reads the three colours of the image), ``"grey"`` (reads one channel),
            ``"tiles"`` (a signed kernel for each input channel, without RGB meaning) or ``"lines"`` (Conv1d).
        reads_image: whether its input is the image (it is the first convolution and takes the image's channels).
            Where only the weights are known, that is a guess (:func:`sp_core.stem.find_stem`).
        depth: slices of a kernel of a Conv3d; else 1.
    """

    layer: str
    kind: str
    weight: Tensor
    groups: int
    view: str
    reads_image: bool
    depth: int = 1

    @property
    def coloured_slices(self) -> bool:
        """Whether each slice of a Conv3d's kernel reads the three colours of a frame."""
        return self.depth > 1 and self.reads_image and self.weight.shape[1] == 3 * self.depth

    @property
    def count(self) -> int:
        """How many filters there are."""
        return self.weight.shape[0]


def first_layer(net: Network) -> str:
    """The name of the convolution that reads the image; see :func:`sp_core.stem.find_stem`."""
    return find_stem(net).layer


def bank(net: Network, layer: str | None = None) -> FilterBank:
    """The filters of the convolution ``layer``; of the first one when None.

    Raises:
        SpError: the network has no convolution, or ``layer`` is not one, or its weights are not numbers.

    >>> one = bank(Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5)), name="one", input_size=(3, 8, 8)))
    >>> one.layer, tuple(one.weight.shape), one.view
    ('0', (4, 3, 5, 5), 'rgb')
    """
    names = convolutions(net)
    stem = find_stem(net).layer
    layer = stem if layer is None else layer.split("#")[0]
    if layer not in names:
        if net.has_graph:
            net.layer(layer)  # a name that does not exist at all gets its own sentence
        raise SpError(f"'{layer}' is not a convolution; the {len(names)} of {net.name} are {', '.join(names[:8])} ….")
    module: Any = net.module.get_submodule(layer)
    weight = module.weight.detach().to("cpu", torch.float32)
    if not bool(weight.isfinite().all()):
        bad = int((~weight.isfinite()).sum())
        raise SpError(f"{bad} of the {weight.numel()} weights of {layer} are NaN or infinite; the training diverged.")
    reads_image = module.in_channels == net.input_size[0] and layer == (names[0] if net.has_graph else stem)
    # Without a graph any layer that takes three channels may be the one that reads the image: it is shown in colour.
    coloured = reads_image or not net.has_graph
    view = "tiles"
    if weight.ndim == 3:
        view = "lines"
    elif weight.ndim == 5:
        depth = weight.shape[2]
        return FilterBank(layer, type(module).__name__, weight.flatten(1, 2), module.groups, view, reads_image, depth)
    elif weight.shape[1] == 1 and (reads_image or module.groups == module.in_channels):
        view = "grey"
    elif coloured and weight.shape[1] == 3:
        view = "rgb"
    return FilterBank(layer, type(module).__name__, weight, module.groups, view, reads_image)


def tiles(filters: FilterBank, scaling: str = "filter", chosen: slice | None = None) -> np.ndarray:
    """One uint8 tile ``[h, w, 3]`` for each filter of an ``rgb`` or ``grey`` bank: ``[n, h, w, 3]``.

    ``"filter"``: each filter's own smallest value is 0 and its largest 255, over all its channels together, so that
    every pattern is seen, a faint one too (the usual picture, Krizhevsky 2012). ``"layer"``: 128 is zero and the
    largest absolute value of the whole layer is 1 or 255, so that tiles can be compared. A filter of one value is 128.

    >>> example = FilterBank("conv1", "Conv2d", torch.zeros(2, 3, 5, 5), 1, "rgb", True)
    >>> tiles(example).shape, int(tiles(example).max())
    ((2, 5, 5, 3), 128)
    """
    if scaling not in SCALINGS:
        raise SpError(f"The scaling must be 'filter' or 'layer'; got '{scaling}'.")
    if filters.view not in {"rgb", "grey"}:
        raise SpError(f"The filters of {filters.layer} have no colours: show them as [out, in] tiles.")
    weight = filters.weight.double()
    limit = weight.abs().max().clamp_min(1e-300)
    weight = weight[chosen] if chosen is not None else weight
    if scaling == "layer":
        scaled = 128 + 127 * weight / limit
    else:
        low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
        scaled = torch.where(high > low, 255 * (weight - low) / (high - low).clamp_min(1e-300), 128.0)
    scaled = scaled.expand(-1, 3, -1, -1) if filters.view == "grey" else scaled
    return scaled.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).numpy()


@dataclass(frozen=True)
class FilterFacts:
    """What can be said of every filter of a bank; float64 tensors ``[n]`` unless said otherwise.

    Attributes:
        layer: the layer's name.
        norm: Euclidean norm of the filter.
        relative_norm: norm divided by the largest norm of the layer; in [0, 1].
        mean: mean of its weights.
        colourfulness: energy in the red–green ``(R-G)/√2`` and blue–yellow ``(2B-R-G)/√6`` channels, divided by that
            in these and the luminance ``(R+G+B)/√3`` together; 0 is grey, 1 is pure colour. NaN without RGB meaning.
        rank1: energy kept when each k×k kernel is replaced by its best separable one: ``Σ σ₁² / Σ‖kernel‖²`` over
            the input channels; 1 is separable (Rigamonti et al. 2013). NaN for Conv1d.
        orientation: degrees in [0, 180) of the peak of the spectrum, as :mod:`sp_core.gabor` defines it (0° is
            vertical stripes). NaN for a blob: a peak below half a cycle across the kernel.
        frequency: cycles a pixel of that peak, in [0, 0.707]. For Conv1d in [0, 0.5]. NaN for 1×1 kernels.
        bandwidth: octaves between the half-amplitude points on both sides of the peak, along its orientation. NaN
            when the amplitude does not fall to half towards zero or before the highest frequency.
        gabor: one row a filter: orientation (degrees), frequency, phase (degrees), sigma across and along the stripes
            (pixels), x, y (pixels), R²; fitted to ``pattern``. NaN for kernels below 3×3. ``[n, 8]``.
        gabor_fit: the fitted functions, ``[n, h, w]``.
        pattern: the filter's main spatial pattern, ``[n, h, w]``: the filter seen along the one direction of colour
            (or of input channels) that keeps most of its energy, the first singular vector of ``[in, h·w]``.
        pattern_share: the energy that ``pattern`` keeps, in [0, 1].
        dead: bool: norm below 1 % of the layer's largest. Its picture is noise, whatever it looks like.
        weak: bool: norm below 10 % of the layer's largest, and not dead.
    """

    layer: str
    norm: Tensor
    relative_norm: Tensor
    mean: Tensor
    colourfulness: Tensor
    rank1: Tensor
    orientation: Tensor
    frequency: Tensor
    bandwidth: Tensor
    gabor: Tensor
    gabor_fit: Tensor
    pattern: Tensor
    pattern_share: Tensor
    dead: Tensor
    weak: Tensor

    def order(self, by: str = "index") -> Tensor:
        """Filter indices sorted ``by`` one of :data:`SORTS`; unknown values and dead filters come last.

        Orientation and frequency ascend; colourfulness, norm and rank-1 energy descend.
        """
        if by not in SORTS:
            raise SpError(f"Filters are sorted by one of {', '.join(SORTS)}; got '{by}'.")
        if by == "index":
            return torch.arange(len(self.norm))
        column = {"orientation": self.orientation, "frequency": self.frequency}.get(by)
        if column is None:
            column = -{"colourfulness": self.colourfulness, "norm": self.norm, "rank-1 energy": self.rank1}[by]
        if by != "norm":
            column = torch.where(self.dead, math.inf, column)
        return column.nan_to_num(nan=math.inf, posinf=math.inf).argsort(stable=True)

    def rows(self) -> list[dict[str, float | int | bool | None]]:
        """One dictionary of plain numbers a filter, for a table, CSV or JSON; None where a number is undefined."""
        names = ("norm", "relative_norm", "mean", "colourfulness", "rank1", "orientation", "frequency", "bandwidth")
        columns = {name: getattr(self, name).tolist() for name in (*names, "pattern_share")}
        fitted = ("orientation", "frequency", "phase", "sigma_across", "sigma_along", "x", "y", "r2")
        columns |= {f"gabor_{name}": self.gabor[:, i].tolist() for i, name in enumerate(fitted)}
        flags = {"dead": self.dead.tolist(), "weak": self.weak.tolist()}
        return [
            {"filter": i}
            | {name: _known(values[i]) for name, values in columns.items()}
            | {name: values[i] for name, values in flags.items()}
            for i in range(len(self.norm))
        ]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def facts(filters: FilterBank) -> FilterFacts:
    """The facts of every filter of a bank, all at once (a few tenths of a second for 96 filters of 11×11).

    Raises:
        SpError: the layer is too large for it.

    >>> facts(FilterBank("conv1", "Conv2d", torch.ones(2, 3, 5, 5), 1, "rgb", True)).colourfulness.tolist()
    [0.0, 0.0]
    """
    if filters.weight.numel() > MOST:
        raise SpError(f"{filters.layer} has {filters.weight.numel()} weights; facts are computed up to {MOST}.")
    line = filters.weight.ndim == 3
    weight = (filters.weight[:, :, None] if line else filters.weight).double()
    count, _, height, width = weight.shape
    norm = weight.flatten(1).norm(dim=1)
    relative = norm / norm.max().clamp_min(1e-300)
    nan = torch.full_like(norm, math.nan)
    orientation, frequency, bandwidth = spectral_peaks(weight)
    pattern, share = _main_pattern(weight)
    table, fitted = torch.full((count, 8), math.nan, dtype=torch.float64), torch.full_like(pattern, math.nan)
    if min(height, width) >= 3:
        g = fit_gabors(pattern, orientation, frequency)
        fitted = g.patterns
        table = torch.stack([g.orientation, g.frequency, g.phase, g.sigma_across, g.sigma_along, g.x, g.y, g.r2], 1)
    return FilterFacts(
        layer=filters.layer,
        norm=norm,
        relative_norm=relative,
        mean=weight.mean((1, 2, 3)),
        colourfulness=_colourfulness(weight) if filters.view == "rgb" else nan,
        rank1=nan if line else _rank1(weight),
        orientation=orientation,
        frequency=frequency,
        bandwidth=bandwidth,
        gabor=table,
        gabor_fit=fitted,
        pattern=pattern,
        pattern_share=share,
        dead=relative < DEAD,
        weak=(relative >= DEAD) & (relative < WEAK),
    )


def opponent(weight: Tensor) -> Tensor:
    """RGB filters ``[n, 3, h, w]`` as luminance, red–green and blue–yellow ``[n, 3, h, w]`` (orthonormal)."""
    return torch.einsum("oc,nchw->nohw", OPPONENT.to(weight.dtype), weight)


def _colourfulness(weight: Tensor) -> Tensor:
    energy = opponent(weight).square().sum((2, 3))  # [n, 3]
    return energy[:, 1:].sum(1) / energy.sum(1).where(energy.sum(1) > 0, math.nan)


def _rank1(weight: Tensor) -> Tensor:
    kernels = weight.flatten(0, 1)  # [n·in, h, w]
    gram = kernels @ kernels.mT if weight.shape[2] <= weight.shape[3] else kernels.mT @ kernels
    largest = torch.linalg.eigvalsh(gram)[:, -1].view(weight.shape[:2]).sum(1)
    total = weight.square().sum((1, 2, 3))
    return (largest / total.where(total > 0, math.nan)).clamp(max=1)


def _main_pattern(weight: Tensor) -> tuple[Tensor, Tensor]:
    """First singular component of ``[in, h·w]``: the pattern ``[n, h, w]`` (σ₁v₁) and its share of the energy."""
    flat = weight.flatten(2)
    if flat.shape[1] <= flat.shape[2]:
        values, vectors = torch.linalg.eigh(flat @ flat.mT)
        direction = vectors[:, :, -1]
        pattern = (direction[:, None] @ flat)[:, 0]
    else:
        values, vectors = torch.linalg.eigh(flat.mT @ flat)
        pattern = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
        direction = (flat @ pattern[:, :, None])[:, :, 0]
    # The sign of a singular vector is free: it is chosen so that the direction points to more light, not less.
    sign = torch.where(direction.sum(1) < 0, -1.0, 1.0)
    total = values.clamp_min(0).sum(1)
    return (pattern * sign[:, None]).view(-1, *weight.shape[2:]), values[:, -1] / total.where(total > 0, math.nan)


def fourier(filters: FilterBank, index: int, size: int = 64) -> Tensor:
    """Fourier magnitude ``[size, size]`` of one filter, root of the power summed over input channels; zero-padded.

    Zero frequency is at ``[size // 2, size // 2]``; the edges are ±½ cycle a pixel; y is *up*, as in the orientations.
    """
    kernel = filters.weight[index].double()
    kernel = kernel[:, None] if kernel.ndim == 2 else kernel
    size = max(size, *kernel.shape[1:])
    power = torch.fft.fft2(kernel, s=(size, size)).abs().square().sum(0)
    return torch.fft.fftshift(power).sqrt()  # rows run down, and the magnitude is even: [fy, fx] = [-fy, -fx]


def response(net: Network, layer: str, channel: int, image: Tensor) -> Tensor:
    """What the filter answers on ``image`` ``[1, c, h, w]``: the output of that channel ``[h, w]``, before any ReLU."""
    found = activations(net, image, [layer])[layer][0]
    if not 0 <= channel < found.shape[0]:
        raise SpError(f"{layer} has filters 0 to {found.shape[0] - 1}; got {channel}.")
    return found[channel].detach().to("cpu", torch.float32)
