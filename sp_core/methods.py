"""The attribution methods: each one image and one target to one map.

A *method* is a generator ``(job, *, settings) -> Map``: it yields ``(done, total)`` while it works and returns the map
of one image, what that map should add up to (or None), and notes. Methods see the network through ``job.scores``, a
function from images to the target's value, or through a private copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sp_core.capture import capture
from sp_core.deep_lift import deep_lift
from sp_core.errors import SpError
from sp_core.lift_rules import gauss_legendre
from sp_core.network import Network, Unit
from sp_core.rules import explain_backprop
from sp_core.targets import Aim, Target, borrowed, pick, values

BATCH = 16  # variants of one image that go through the network at once
Work = Generator[tuple[int, int], None, "Map"]


@dataclass(frozen=True)
class Map:
    """What a method returns: the values, what they should add up to, and sentences a person should read."""

    values: Tensor  # [1, c or 1, h, w]
    expected: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One image ``[1, c, h, w]``, the network, and the target with its position fixed."""

    net: Network
    image: Tensor
    aim: Aim
    value: float

    def scores(self, variants: Tensor) -> Tensor:
        """The target's values ``[m]`` of variants ``[m, c, h, w]`` of the image; differentiable."""
        return values(self.net, variants, self.aim.times(len(variants)))[0]

    def fill(self, colour: str | float) -> Tensor:
        """``[1, c, 1, 1]``: black, white, the network's mean colour, or a grey level in [0, 1]."""
        channels = self.image.shape[1]
        known = {"black": (0.0,) * channels, "white": (1.0,) * channels, "mean": self.net.mean or (0.5,) * channels}
        if isinstance(colour, (int, float)) and 0 <= colour <= 1:
            known[colour] = (float(colour),) * channels  # type: ignore[index]
        if colour not in known:
            raise SpError(f"A colour is 'black', 'mean', 'white' or a grey level from 0 to 1; got '{colour}'.")
        return torch.tensor(known[colour]).to(self.image).view(1, -1, 1, 1)  # type: ignore[index]

    def baseline(self, name: str | float) -> Tensor:
        """``[1, c, h, w]``: a colour as of :meth:`fill` everywhere, or the image itself ``"blurred"``."""
        return blurred(self.image) if name == "blurred" else self.fill(name).expand_as(self.image).contiguous()


def blurred(images: Tensor, sigma: float | None = None) -> Tensor:
    """Images ``[n, c, h, w]`` under a Gaussian of ``sigma`` pixels, the edges repeated outwards.

    By default σ is 5 pixels at 224 and in proportion at other sizes, at least 1 (Petsiuk et al. 2018 use 5 at 224).
    """
    sigma = max(1.0, 5 * min(images.shape[2:]) / 224) if sigma is None else sigma
    radius = max(1, math.ceil(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(images.shape[1], 1, 1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None], groups=images.shape[1])  # weights [c, 1, 1, k]
    return F.conv2d(rows, kernel[..., None], groups=images.shape[1])  # weights [c, 1, k, 1]


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise SpError(f"`{name}` must be at least {least}; got {value}.")


def _rule(name: str) -> Callable[..., Work]:
    def method(job: Job) -> Work:
        yield 0, 1
        channel, position = job.aim.channels[0], job.aim.positions[0]
        answer = explain_backprop(job.net, job.image, _target(job, channel, position), name)
        return Map(answer.gradient, None, answer.notes)

    return method


def _target(job: Job, channel: int, position: tuple[int, int] | None) -> Target:
    return channel if job.aim.layer is None else Unit(job.aim.layer, channel, position)


def _integrated_gradients(job: Job, *, steps: int = 64, baseline: str | float = "black") -> Work:
    """Gradients averaged on the straight way from a baseline, times the way (Sundararajan et al. 2017, eq. 1).

    In units of the target: the map adds up to target(image) - target(baseline), up to the error of ``steps``
    Gauss-Legendre points. A pixel of the baseline's colour gets nothing, whatever it means.
    """
    _at_least("steps", steps, 2)
    start = job.baseline(baseline)
    places, shares = gauss_legendre(int(steps))
    total = torch.zeros_like(job.image)
    for first in range(0, len(places), BATCH):
        yield first, len(places)
        at = torch.tensor(places[first : first + BATCH]).to(job.image).view(-1, 1, 1, 1)
        share = torch.tensor(shares[first : first + BATCH]).to(job.image).view(-1, 1, 1, 1)
        between = (start + at * (job.image - start)).requires_grad_()
        (slopes,) = torch.autograd.grad(job.scores(between).sum(), between, allow_unused=True)
        if slopes is not None:
            total += (share * slopes).sum(0, keepdim=True)
    with torch.no_grad():
        expected = job.value - float(job.scores(start))
    return Map(total * (job.image - start), expected)


def _deep_lift(job: Job, *, baseline: str | float = "blurred") -> Work:
    """DeepLift's Rescale rule against a baseline (Shrikumar et al. 2017): :mod:`sp_core.deep_lift` has the formulas.

    In units of the target: the map adds up to target(image) - target(baseline), on every network, but for rounding. A
    pixel that the baseline shares with the image gets nothing.
    """
    yield 0, 1
    found = deep_lift(job.net, job.image, job.baseline(baseline), job.aim)
    notes = ("Computed in float64: in float32 rounding was too large.",) if _wider(found.precision, job.image) else ()
    return Map(found.contributions.to(job.image), float(found.expected[0]), notes)


def _wider(precision: torch.dtype, image: Tensor) -> bool:
    return torch.finfo(precision).bits > torch.finfo(image.dtype).bits


def _smoothgrad(job: Job, *, samples: int = 32, noise: float = 0.15, seed: int = 0) -> Work:
    """The gradient averaged over ``samples`` noisy copies of the image (Smilkov et al. 2017).

    The noise is Gaussian, its standard deviation ``noise`` times the image's range (max - min); the paper's figures
    use 10 to 20 %. Signed, in the target's units per unit of pixel value.
    """
    _at_least("samples", samples, 1)
    _at_least("noise", noise, 0)
    generator = torch.Generator().manual_seed(int(seed))
    width = float(noise) * float(job.image.max() - job.image.min())
    total = torch.zeros_like(job.image)
    for start in range(0, int(samples), BATCH):
        yield start, int(samples)
        count = min(BATCH, int(samples) - start)
        drawn = torch.randn(count, *job.image.shape[1:], generator=generator).to(job.image)
        variants = (job.image + width * drawn).requires_grad_()
        total += torch.autograd.grad(job.scores(variants).sum(), variants)[0].sum(0, keepdim=True)
    return Map(total / int(samples))


def _grad_cam(job: Job, *, layer: str | None = None) -> Work:
    """Channels of a layer weighted by their mean gradient, summed, negative parts cut (Selvaraju et al. 2017, eq. 1-2).

    By default at the last layer with positions (before the target's layer; maps with one channel a class left out).
    The map is enlarged to the image by bilinear interpolation. Not negative.
    """
    yield 0, 1
    layer = layer or cam_layer(job.net, job.aim)
    if not job.net.layer_with_units(layer).is_map:
        raise SpError(f"Grad-CAM needs a layer with positions; {layer} puts out a vector.")
    image = job.image.clone().requires_grad_()
    end = job.aim.layer or ""
    with borrowed(job.net) as copy:
        found = capture(copy, job.net.normalise(image), [layer, end])  # "" is the network's own output
    value, _ = pick(found[end], job.aim)
    (gradient,) = torch.autograd.grad(value.sum(), found[layer], allow_unused=True)
    if gradient is None:
        raise SpError(f"{job.aim.names(job.net)[0]} does not depend on {layer}; choose a layer below it.")
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * found[layer]).sum(1, keepdim=True).relu().detach()  # [1, 1, rows, columns]
    rows, columns = cam.shape[2:]
    notes = [f"Grad-CAM at {layer}: {rows}×{columns} positions, enlarged to the image."]
    if not bool(cam.any()):
        notes.append(
            f"Grad-CAM is zero: at {layer} all positions speak against the target, and negative parts are cut."
        )
    return Map(F.interpolate(cam, size=job.image.shape[2:], mode="bilinear", align_corners=False), None, tuple(notes))


_COARSER = {"Dropout", "Identity", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"}  # pass on, or blur, the map before them


def cam_layer(net: Network, aim: Aim) -> str:
    """The layer that Grad-CAM takes by default: the last map before the target with more than one position.

    Not an adaptive pool: 2×2 positions, enlarged, are one colour.
    """
    layers = list(net.layers)
    if aim.layer is not None:
        names = [layer.name for layer in layers]
        layers = [x for x in layers[: names.index(aim.layer)] if not _related(x.name, aim.layer)]
    maps = [x for x in layers if x.is_map and min(x.output_shape[1:]) > 1 and x.kind not in _COARSER]
    best = [x for x in maps if aim.layer is not None or x.channels != net.class_count] or maps
    if not best:
        raise SpError("Grad-CAM is undefined here: no layer with positions comes before the target.")
    return best[-1].name


def _related(a: str, b: str) -> bool:
    return a.startswith(b + ".") or b.startswith(a + ".")


def _guided_grad_cam(job: Job, *, layer: str | None = None) -> Work:
    """Guided backprop times Grad-CAM (Selvaraju et al. 2017, section 3.2). Signed, in no unit."""
    cam = yield from _grad_cam(job, layer=layer)
    guided = yield from _rule("guided")(job)
    return Map(cam.values * guided.values, None, tuple(dict.fromkeys(cam.notes + guided.notes)))


def _occlusion(job: Job, *, window: int | None = None, stride: int | None = None, colour: str | float = "mean") -> Work:
    """How much the target falls when a square is covered (Zeiler and Fergus 2014, section 4.2).

    Each pixel has the mean over all squares that cover it, in the target's units; positive: covering it hurts.
    ``window`` (default: a seventh of the shorter side) and ``stride`` (default: half of it) are in pixels.
    """
    height, width = job.image.shape[2:]
    window, stride = window_of(height, width, window, stride)
    if window > min(height, width):
        raise SpError(f"`window` must be at most {min(height, width)}, the image's shorter side; got {window}.")
    if stride > window:
        raise SpError(f"`stride` must be at most the window ({window}), or pixels are missed; got {stride}.")
    corners = corners_of(height, width, window, stride)
    fill = job.fill(colour)
    total, count = torch.zeros(1, 1, height, width).to(job.image), torch.zeros(1, 1, height, width).to(job.image)
    for start in range(0, len(corners), BATCH):
        yield start, len(corners)
        part = corners[start : start + BATCH]
        variants = job.image.repeat(len(part), 1, 1, 1)
        for row, (y, x) in enumerate(part):
            variants[row, :, y : y + window, x : x + window] = fill[0]
        with torch.no_grad():
            falls = (job.value - job.scores(variants)).tolist()
        for fall, (y, x) in zip(falls, part, strict=True):
            total[..., y : y + window, x : x + window] += fall
            count[..., y : y + window, x : x + window] += 1
    return Map(total / count)


def window_of(height: int, width: int, window: int | None, stride: int | None) -> tuple[int, int]:
    """Window and stride of occlusion, with the defaults filled in."""
    window = int(window or max(1, round(min(height, width) / 7)))
    return window, int(stride or max(1, window // 2))


def corners_of(height: int, width: int, window: int, stride: int) -> list[tuple[int, int]]:
    """The upper left pixels of all windows of occlusion."""
    return [(y, x) for y in _starts(height, window, stride) for x in _starts(width, window, stride)]


def _starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover ``length`` pixels; the last one ends at the edge."""
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _lrp(job: Job) -> Work:
    """Layer-wise relevance propagation by the epsilon rule, epsilon to 0 (Bach et al. 2015, eq. 58).

    In units of the logit; the map adds up to what the biases do not hold. It is shown only where it is what it claims
    to be: :mod:`sp_core.relevance` has the formula and the proof. Gates and layer normalisation have no rule.
    """
    from sp_core.relevance import check_rules, relevance

    if job.aim.layer is not None:
        raise SpError("LRP starts from a class here; choose a class, or another method for a unit.")
    check_rules(job.net)
    yield 0, 1
    found, logit, biases = relevance(job.net, job.image, job.aim.channels[0])
    note = f"The logit is {logit:.4g}, of which the biases hold {biases:.4g}; the map holds the rest."
    return Map(found.to(job.image), logit - biases, (note,))


METHODS: dict[str, Callable[..., Work]] = {
    "gradient": _rule("gradient"),
    "deconvnet": _rule("deconvnet"),
    "guided": _rule("guided"),
    "integrated_gradients": _integrated_gradients,
    "deep_lift": _deep_lift,
    "smoothgrad": _smoothgrad,
    "grad_cam": _grad_cam,
    "guided_grad_cam": _guided_grad_cam,
    "occlusion": _occlusion,
    "lrp": _lrp,
}
TITLES = {
    "gradient": "Gradient",
    "deconvnet": "Deconvnet",
    "guided": "Guided backprop",
    "integrated_gradients": "Integrated gradients",
    "deep_lift": "DeepLift",
    "smoothgrad": "SmoothGrad",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM",
    "occlusion": "Occlusion",
    "lrp": "LRP",
}
"""What people call the methods."""
SENSITIVITIES = {"gradient", "deconvnet", "guided", "smoothgrad", "guided_grad_cam"}
"""Methods whose sign says in which direction a pixel should change, not whether it speaks for the target."""
