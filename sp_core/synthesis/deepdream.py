"""DeepDream: a picture altered so that what a layer already sees in it is strengthened, from coarse to fine.

Mordvintsev, Olah, Tyka, "Inceptionism", 2015, after google/deepdream's notebook: octaves, a random shift (roll) before
each step, steps divided by the mean size of the gradient, detail carried from one octave to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sp_core import images as pictures
from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.synthesis import objectives as ask
from sp_core.synthesis.objectives import Objective, Probe
from sp_core.synthesis.plan import runs_at
from sp_core.synthesis.precision import Runner, quick_runner, widened
from sp_core.synthesis.settings import DreamSettings

SMALLEST = 32  # pixels of the shorter side of the first octave
MOST_OCTAVES = 5  # when their number is not given
_PASSING = ("Pool", "Dropout", "Identity", "Shuffle", "Upsample")  # kinds of layers that compute nothing new
_GUIDE_SIDE = 224  # pixels: the guide is looked at in about this size


@dataclass(frozen=True)
class DreamStep:
    """The picture after one step.

    Attributes:
        step, steps: this one, from 1, and how many there will be in all.
        octave, octaves: likewise for the sizes, smallest first.
        image: float32 ``[c, h, w]`` in [0, 1]; h, w are those of the octave, and in the last octave the picture's.
        objective: what is strengthened, before this step, on the shifted picture.
        name: what that is called.
        note: what a person should know (the picture was made smaller, octaves were left out); ``""`` if nothing.
        precision: what the products of the steps were computed in, ``"bfloat16"`` or ``"float32"``.
    """

    step: int
    steps: int
    octave: int
    octaves: int
    image: Tensor
    objective: float
    name: str
    note: str = ""
    precision: str = "float32"


def dream(
    net: Network,
    image: Image.Image | Tensor,
    settings: DreamSettings | None = None,
    *,
    guide: Image.Image | Tensor | None = None,
) -> Iterator[DreamStep]:
    """DeepDream on a picture, at the picture's own size.

    Args:
        net: the network.
        image: a picture, or float ``[c, h, w]`` in [0, 1].
        settings: see :class:`DreamSettings`.
        guide: another picture, whose features are to appear in this one; the target must then be a layer.

    Yields:
        One :class:`DreamStep` a step. It can be stopped between any two.

    Raises:
        SpError: at the call, what is asked for does not exist or does not run at this size; at the end, the gradient
            was zero throughout, so that the picture was not changed.

    >>> net = sp.load("bundled:textures-vgg")
    >>> *_, last = sp.dream(net, torch.rand(3, 40, 60), sp.DreamSettings(steps=2))
    >>> last.image.shape
    torch.Size([3, 40, 60])
    """
    settings = settings or DreamSettings()
    picture, notes = _limited(_tensor(net, image), settings.max_pixels)
    objective = _objective(net, settings, guide)
    sizes = octave_sizes((picture.shape[1], picture.shape[2]), settings)
    largest = min(settings.tile, sizes[-1][0]), min(settings.tile, sizes[-1][1])
    if runs_at(net, objective.layers, largest) is None:
        h, w = net.input_size[1:]
        raise SpError(
            f"{net.name} does not run on {largest[0]}×{largest[1]} pixels up to {objective.name}; choose a layer "
            f"before the fully connected ones, or a picture of {h}×{w} pixels with one octave."
        )
    running = [size for size in sizes if all(runs_at(net, objective.layers, t) for t in _tile_shapes(size, settings))]
    if len(running) < len(sizes):
        notes += f"{len(sizes) - len(running)} of {len(sizes)} octaves are too small for this layer and are left out. "
    if not running:
        raise SpError(f"No octave of this picture is large enough for {objective.name}; choose an earlier layer.")
    with torch.inference_mode(False):
        runner = quick_runner(net, settings.precision, objective.layers, max(_tile_shapes(running[-1], settings)))
    return _steps(net, runner, picture, objective, running, settings, notes.strip())


def _steps(
    net: Network,
    runner: Runner,
    picture: Tensor,
    objective: Objective,
    sizes: list[tuple[int, int]],
    settings: DreamSettings,
    note: str,
) -> Iterator[DreamStep]:
    generator = torch.Generator().manual_seed(settings.seed)
    picture = picture[None].to(net.device)
    detail: Tensor | None = None  # what the octaves before have changed
    moved = False
    for number, size in enumerate(sizes):
        base = picture if size == tuple(picture.shape[2:]) else _resized(picture, size)
        current = base.clone() if detail is None else (base + _resized(detail, size)).clamp_(0, 1)
        for index in range(settings.steps):
            value, gradient = _gradient(runner, current, objective, settings, generator)
            size_of = gradient.norm(1) / gradient.numel()
            if float(size_of) > 0:
                moved = True
                # A step's record keeps its picture, so a new one is made; all else is done in place.
                current = gradient.mul_(settings.strength / 255 / size_of).add_(current).clamp_(0, 1)
            if not torch.isfinite(size_of):
                raise SpError(
                    f"The gradient of {objective.name} is NaN or infinite on this picture; choose another layer."
                )
            step = number * settings.steps + index + 1
            at = (step, len(sizes) * settings.steps, number + 1, len(sizes))
            yield DreamStep(*at, current[0], value, objective.name, note, runner.precision)
        detail = current - base if number + 1 < len(sizes) else detail
    if not moved:
        raise SpError(
            f"{objective.name} has no gradient anywhere on this picture, so there was nothing to strengthen; "
            "choose another layer or unit."
        )


def _gradient(
    runner: Runner,
    image: Tensor,
    objective: Objective,
    settings: DreamSettings,
    generator: torch.Generator,
) -> tuple[float, Tensor]:
    """The objective and its gradient on ``image [1, c, h, w]``, by tiles, at a random shift that hides the seams."""
    h, w = image.shape[2:]
    reach = min(settings.jitter, min(h, w) // 4)
    dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    shifted = image.roll((dy, dx), (2, 3))
    gradient = torch.zeros_like(shifted)
    total, rows, columns = 0.0, _cuts(h, settings.tile), _cuts(w, settings.tile)
    for top, bottom in rows:
        for left, right in columns:
            with torch.inference_mode(False), torch.enable_grad():
                piece = shifted[:, :, top:bottom, left:right].clone().requires_grad_()
                probe = Probe(widened(runner(piece, objective.layers)))
                value = objective(probe).sum()
                if value.requires_grad:
                    found = torch.autograd.grad(value, piece, allow_unused=True)[0]
                    gradient[:, :, top:bottom, left:right] = 0 if found is None else found
                # A tile's mean counts by its share of the picture, so that seams do not change the strength.
                share = (bottom - top) * (right - left) / (h * w)
                gradient[:, :, top:bottom, left:right] *= share
                total += float(value.detach()) * share
    return total, gradient.roll((-dy, -dx), (2, 3))


# --- the plan ---------------------------------------------------------------------------------------------------------


def octave_sizes(size: tuple[int, int], settings: DreamSettings) -> list[tuple[int, int]]:
    """The sizes (h, w) of the octaves, smallest first, the last the picture's own.

    >>> octave_sizes((64, 96), DreamSettings())
    [(33, 49), (46, 69), (64, 96)]
    """
    count = settings.octaves
    if count is None:
        count = 1
        while count < MOST_OCTAVES and min(size) / settings.scale**count >= SMALLEST:
            count += 1
    factors = [settings.scale**-power for power in reversed(range(count))]
    return [(max(1, round(size[0] * factor)), max(1, round(size[1] * factor))) for factor in factors]


def default_layer(net: Network) -> str:
    """A layer about two thirds of the way up the maps: high enough for things, low enough for sharp ones.

    Not one that only passes values on, as pooling does: indexes of patches leave those out.
    """
    maps = [layer for layer in net.layers if layer.is_map and min(layer.output_shape[1:]) > 1]
    if not maps:
        raise SpError(f"{net.name} has no layer with maps, so there is nothing to dream of.")
    making = [layer for layer in maps if not (layer.leaf and any(word in layer.kind for word in _PASSING))] or maps
    return making[(len(making) - 1) * 2 // 3].name


def _objective(net: Network, settings: DreamSettings, guide: Image.Image | Tensor | None) -> Objective:
    target = settings.target if settings.target is not None else default_layer(net)
    if isinstance(target, Objective):
        return target
    if isinstance(target, str) and target in {layer.name for layer in net.layers}:
        if guide is None:
            return ask.whole_layer(target)
        features = _guide_features(net, net.layer_with_units(target).name, guide)
        return ask.guided_by(target, features)
    unit = Unit.parse(target) if isinstance(target, str) and ":" in target else target
    if not isinstance(unit, Unit):
        net.layer(str(target))  # says which names are close
    if guide is not None:
        raise SpError(f"With a guide image the target must be a layer; got the unit {unit}.")
    layer = net.check(unit)
    if unit.position is not None:
        raise SpError(f"DeepDream changes its picture's size, so a unit has no fixed position; leave it out of {unit}.")
    return ask.channel(layer.name, unit.channel)


def _guide_features(net: Network, layer: str, guide: Image.Image | Tensor) -> Tensor:
    picture = _tensor(net, guide)
    factor = _GUIDE_SIDE / min(picture.shape[1:])
    size = (round(picture.shape[1] * factor), round(picture.shape[2] * factor))
    if max(size) > 4 * _GUIDE_SIDE:
        raise SpError(f"The guide image is {picture.shape[2]}×{picture.shape[1]}: too long and thin. Cut it first.")
    with torch.no_grad():
        inputs = net.normalise(net.check_images(_resized(picture[None], size)))
        features = capture(net.clone(), inputs, [layer])[layer][0]
    if features.ndim != 3:
        raise SpError(f"{layer} has no maps, so a guide cannot be matched with it; choose an earlier layer.")
    flat = features.flatten(1)
    step = -(-flat.shape[1] // 1024)  # at most 1024 features: more only cost memory
    return flat[:, ::step]


def _tensor(net: Network, image: Image.Image | Tensor) -> Tensor:
    if isinstance(image, Image.Image):
        return pictures.to_tensor(image, net.input_size[0])
    if image.ndim != 3 or image.shape[0] != net.input_size[0]:
        raise SpError(f"The image must be [{net.input_size[0]}, h, w] for {net.name}; got {list(image.shape)}.")
    if image.numel() == 0 or not torch.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise SpError("The image must have values in [0, 1].")
    return image.detach().float().cpu()


def _limited(picture: Tensor, pixels: int) -> tuple[Tensor, str]:
    _, h, w = picture.shape
    if h * w <= pixels:
        return picture, ""
    factor = (pixels / (h * w)) ** 0.5
    size = (max(1, int(h * factor)), max(1, int(w * factor)))
    note = f"The picture of {w}×{h} was made smaller, {size[1]}×{size[0]}: at most {pixels / 1e6:g} megapixels. "
    return _resized(picture[None], size)[0], note


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    """Nearly equal pieces of at most ``tile``: a thin last one would not run."""
    count = -(-length // tile)
    edges = [round(length * k / count) for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def _tile_shapes(size: tuple[int, int], settings: DreamSettings) -> set[tuple[int, int]]:
    sides: list[Any] = [{stop - start for start, stop in _cuts(length, settings.tile)} for length in size]
    return {(h, w) for h in sides[0] for w in sides[1]}
