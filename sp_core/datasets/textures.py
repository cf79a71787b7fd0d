"""An endless, seeded set of describable textures whose every parameter is known.

Eighteen classes after the vocabulary of the Describable Textures Dataset (Cimpoi et al., CVPR 2014), drawn by formula
instead of photographed: image ``i`` of seed ``s`` is the same picture in every batch, in every process and at every
size, so that training data need no disk, and a question like "does this filter prefer 30° or 60°?" has a true answer.

**Exactness.** All randomness is a hash of (seed, index) in whole numbers (:mod:`sp_core.datasets.counter`), and
parameters are always computed on the CPU, so those are identical everywhere. Pixels are drawn on ``device`` in
float32 and rounded to 8 bits; sine, square root and interpolation differ in the last bit between CPU and CUDA, which
can move a value over a rounding border: two devices agree to ±1 level of 255 (a pixel that lies exactly on a hard
edge may differ by more).

**Sizes.** Geometry is in units of the image side and noise lives on a fixed lattice, so sizes differ only in sampling.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sp_core.datasets.counter import keys, uniform
from sp_core.datasets.patterns import PATTERNS, TABLE, Canvas
from sp_core.errors import SpError

CLASSES: tuple[str, ...] = tuple(PATTERNS)
VERSION = 1  # raise it when a picture changes: it is part of the fingerprint
SMALLEST, LARGEST = 32, 256  # sizes in pixels for which edges and grain were looked at

# Streams of random numbers of one image.
_ORDER, _SCALARS, _COLOURS, _TABLE, _NOISE, _WARP, _LIGHT, _GRAIN = range(8)
_OCTAVES = (4, 8, 16, 32)  # lattice points across the image for smooth noise
_GRAIN_LATTICE = 64
_CHUNK = {"cpu": 512, "cuda": 8192}  # images drawn at once: what fits the cache, or fills the GPU


def _oklab_to_srgb(lightness: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab/) to sRGB ``[..., 3]``, clipped to [0, 1]."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = torch.stack([red, green, blue], -1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def _palettes(key: Tensor) -> Tensor:
    """Background, foreground and accent colour of each image: float64 sRGB ``[n, 3 colours, 3]``.

    A fifth of the palettes have one hue, half have opposed hues (also at equal lightness: such edges are seen by colour
    alone and train colour-opponent filters), the rest neighbouring hues. Foreground and background are never nearer
    than 0.45 in sRGB (of √3 between black and white), so that every texture can be seen.
    """
    r = uniform(key, _COLOURS, 12).double().unbind(1)
    hue, scheme = 2 * math.pi * r[0], r[1]
    one_hue, opposed = scheme < 0.2, (scheme >= 0.2) & (scheme < 0.7)
    turn = torch.where(one_hue, 0.3 * r[2], torch.where(opposed, math.pi * (0.7 + 0.6 * r[2]), 0.7 + 0.9 * r[2]))
    turn = torch.where(r[3] < 0.5, turn, -turn)
    chroma = torch.where(one_hue & (r[4] < 0.4), 0.01, 0.07 + 0.13 * r[4])
    step = torch.where(opposed, 0.42 * r[5], 0.25 + 0.3 * r[5])
    dark = 0.25 + (0.93 - 0.25 - step) * r[6]
    ground = torch.where(r[7] < 0.5, dark, dark + step)
    figure = torch.where(r[7] < 0.5, dark + step, dark)
    third = (0.3 + 0.62 * r[8]).clamp(0.25, 0.95)
    hues = torch.stack([hue, hue + turn, hue + turn * (0.35 + 0.5 * r[9]) + 1.2 * (r[10] - 0.5)], 1)
    lightness = torch.stack([ground, figure, third], 1)
    chromas = chroma[:, None] * torch.stack([0.6 + 0.4 * r[11], torch.ones_like(hue), torch.ones_like(hue)], 1)
    colours = _oklab_to_srgb(lightness, chromas * hues.cos(), chromas * hues.sin())  # [n, 3, 3]
    ground_colour, figure_colour = colours[:, 0], colours[:, 1]
    # Too near: move the figure towards black or white, whichever is farther from the ground, until it is 0.45 away.
    # t is the positive root of |figure + t · (pole - figure) - ground|² = 0.45², a quadratic a·t² + 2b·t + c = 0.
    pole = (ground_colour.mean(1, keepdim=True) < 0.5).double().expand_as(ground_colour)
    away, apart = pole - figure_colour, figure_colour - ground_colour
    a, b = (away * away).sum(1).clamp_min(1e-9), (away * apart).sum(1)
    c = (apart * apart).sum(1) - 0.45**2
    t = torch.where(c < 0, (-b + (b * b - a * c).clamp_min(0).sqrt()) / a, torch.zeros_like(a))
    colours[:, 1] = figure_colour + away * t[:, None]
    return colours


def _parameters(seed: int, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The parameters of images (see :meth:`Textures.parameters`) and their keys ``[n]``, always on the CPU."""
    indices = indices.detach().to("cpu", torch.int64)
    key = keys(seed, indices)
    # Every run of 18 indices holds each class once, in an order of its own.
    count = len(CLASSES)
    block = torch.div(indices, count, rounding_mode="floor")
    order = uniform(keys(seed, -1 - block), _ORDER, count).argsort(dim=1, stable=True)  # [n, 18]
    label = order.gather(1, (indices - block * count)[:, None])[:, 0]
    r = uniform(key, _SCALARS, 16).double().unbind(1)
    lowest = torch.tensor([low for _, low, _ in PATTERNS.values()], dtype=torch.float64)[label]
    highest = torch.tensor([high for _, _, high in PATTERNS.values()], dtype=torch.float64)[label]
    values = {
        "label": label,
        "orientation": math.pi * r[0],
        "frequency": lowest * (highest / lowest) ** r[1],
        "shear": math.radians(12) * (2 * r[2] - 1),
        "aspect": 0.85 * (1 / 0.85**2) ** r[3],
        "phase_u": r[4],
        "phase_v": r[5],
        "warp": 0.22 * (r[6] - 0.3).clamp_min(0) / 0.7,
        "softness": 0.02 + 0.2 * r[7] ** 3,
        "shape": r[8],
        "style": r[9],
        "contrast": 0.6 + 0.4 * r[10],
        "illumination": 0.45 * r[11] ** 1.5,
        "illumination_angle": 2 * math.pi * r[12],
        "noise": 0.06 * (r[13] - 0.25).clamp_min(0) / 0.75,
        "palette": _palettes(key),
    }
    return {name: v if v.dtype == torch.int64 else v.float() for name, v in values.items()}, key


def _lattice(key: Tensor, stream: int, planes: int, points: int, size: int) -> Tensor:
    """Smooth noise ``[planes, n, size, size]`` in about [-1, 1] from a lattice of ``points`` × ``points`` numbers."""
    values = uniform(key, stream, planes * points * points).view(-1, planes, points, points) * 2 - 1
    if points != size:
        # Below the lattice's own size, averaging keeps a small picture equal to a large one made small.
        values = F.interpolate(values, (size, size), mode="bicubic", align_corners=False, antialias=size < points)
    return values.transpose(0, 1)


def _draw(label: int, given: dict[str, Tensor], key: Tensor, size: int) -> Tensor:
    """Images of one class: uint8 ``[n, 3, size, size]`` on the device of ``key``; ``given`` holds their parameters."""
    n, device = len(key), key.device
    p = {name: value[:, None, None] for name, value in given.items() if name not in {"palette", "label"}}  # [n, 1, 1]
    side = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size  # pixel centres, in image sides
    x, y = side[None, None, :], side[None, :, None]
    push = _lattice(key, _WARP, 2, 5, size) * (p["warp"] / p["frequency"].clamp_min(3))  # [2, n, h, w], in image sides
    # The cosines come from the CPU with the parameters, so that orientation is exact on every device.
    x, y = x + push[0] - 0.5, y + push[1] - 0.5
    u = p["frequency"] * (p["cos_u"] * x + p["sin_u"] * y) + p["phase_u"]
    v = p["frequency"] * p["aspect"] * (p["cos_v"] * y - p["sin_v"] * x) + p["phase_v"]
    name = CLASSES[label]
    octaves = [_lattice(key, _NOISE + 16 * points, 1, points, size)[0] if name in _NOISY else u for points in _OCTAVES]
    canvas = Canvas(
        u=u,
        v=v,
        noise=torch.stack(octaves),
        table=uniform(key, _TABLE, 3 * TABLE * TABLE).view(n, 3, TABLE * TABLE).transpose(0, 1),
        frequency=p["frequency"],
        pixel=p["frequency"] / size,
        soft=p["softness"],
        shape=p["shape"],
        style=p["style"],
    )
    ink, accent = PATTERNS[name][0](canvas)
    ground, figure, third = given["palette"][:, :, :, None, None].unbind(1)  # each [n, 3, 1, 1]
    ink, accent = ink[:, None], accent[:, None]
    image = ground + p["contrast"][:, None] * ((figure - ground) * ink + (third - figure) * accent * ink)
    slope = (p["cos_l"] * (side[None, None, :] - 0.5) + p["sin_l"] * (side[None, :, None] - 0.5)) * 1.2
    light = 1 + p["illumination"] * (slope + 0.5 * _lattice(key, _LIGHT, 1, 4, size)[0])
    grain = p["noise"] * _lattice(key, _GRAIN, 1, _GRAIN_LATTICE, size)[0]
    image = image * light[:, None] + grain[:, None]
    return image.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)


_NOISY = frozenset({"cracked", "marbled", "blotchy"})


def render(indices: Tensor, *, seed: int, size: int, device: str | torch.device = "cpu") -> Tensor:
    """Draw images: uint8 RGB ``[n, 3, size, size]`` on ``device`` for int64 ``indices`` ``[n]``.

    >>> render(torch.tensor([5, 2]), seed=0, size=64).shape
    torch.Size([2, 3, 64, 64])
    """
    if not SMALLEST <= size <= LARGEST:
        raise SpError(f"size must be {SMALLEST} to {LARGEST} pixels for textures, got {size}; choose a size in between")
    device = torch.device(device)
    chunk = _CHUNK.get(device.type, 512)
    given, key = _parameters(seed, indices)
    second = given["orientation"] + given["shear"]
    for name, angle in (("u", given["orientation"]), ("v", second), ("l", given["illumination_angle"])):
        given[f"cos_{name}"], given[f"sin_{name}"] = angle.double().cos().float(), angle.double().sin().float()
    images = torch.empty(len(key), 3, size, size, dtype=torch.uint8, device=device)
    for start in range(0, len(key), chunk):
        labels = given["label"][start : start + chunk]
        for label in labels.unique().tolist():
            rows = start + (labels == label).nonzero()[:, 0]
            some = {name: value[rows].to(device) for name, value in given.items()}
            images[rows.to(device)] = _draw(label, some, key[rows].to(device), size)
    return images


class Textures:
    """``count`` textures of ``seed``, from index ``offset`` on; the endless set seen through a window.

    ``size`` is in pixels (32 … 256). Each run of 18 indices (counted from index 0 of the seed) holds each class once.

    >>> images, labels = Textures(100, seed=3).batch(0, 8)
    >>> images.shape, images.dtype, labels.shape
    (torch.Size([8, 3, 64, 64]), torch.float32, torch.Size([8]))
    """

    name = "textures"
    classes = CLASSES

    def __init__(
        self, count: int = 10_000, *, seed: int = 0, size: int = 64, device: str | torch.device = "cpu", offset: int = 0
    ) -> None:
        if count < 1:
            raise SpError(f"count must be at least 1 texture, got {count}; ask for one or more")
        if not SMALLEST <= size <= LARGEST:
            raise SpError(
                f"size must be {SMALLEST} to {LARGEST} pixels for textures, got {size}; choose one in between"
            )
        self.count, self.seed, self.size, self.offset = count, seed, size, offset
        self.device = torch.device(device)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when any image of the set would (its own ``size`` included)."""
        text = f"{self.name} v{VERSION} seed {self.seed} offset {self.offset} count {self.count} size {self.size}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.count

    def _indices(self, indices: Any) -> Tensor:
        """Positions in this window as indices of the seed; a person's number outside the window is an error."""
        positions = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        wrong = positions[(positions < 0) | (positions >= self.count)]
        if len(wrong):
            raise SpError(f"texture {int(wrong[0])} does not exist: choose an index from 0 to {self.count - 1}")
        return positions + self.offset

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """Images and labels ``start … stop - 1``: float32 ``[n, 3, h, w]`` in [0, 1] (n / 255), int64 ``[n]``.

        With a network, the images are drawn at its input size (the longer side, cut to the middle when it is not
        square) and on its device; else at ``self.size`` on ``self.device``.
        """
        height = width = self.size
        device = self.device
        if network is not None:
            height, width = (int(side) for side in network.input_size[-2:])
            device = torch.device(network.device)
        indices = self._indices(torch.arange(start, min(stop, self.count)))
        side = max(height, width)
        images = render(indices, seed=self.seed, size=min(max(side, SMALLEST), LARGEST), device=device)
        images = images.float() / 255
        if images.shape[-1] != side:  # networks outside 32 … 256 pixels see the nearest size, resized
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        top, left = (side - height) // 2, (side - width) // 2
        labels, _ = _parameters(self.seed, indices)
        return images[:, :, top : top + height, left : left + width], labels["label"].to(device)

    def picture(self, index: int, size: int | None = None) -> Image.Image:
        """Image ``index`` as an RGB picture of ``size`` × ``size`` pixels (``self.size`` by default).

        >>> Textures().picture(7, size=128).size
        (128, 128)
        """
        pixels = render(self._indices(index), seed=self.seed, size=size or self.size)[0]
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")

    def parameters(self, indices: Any) -> dict[str, Tensor]:
        """What image ``indices`` are made of, each ``[n]`` (``palette``: ``[n, 3, 3]``), on the CPU.

        ``label``: class, int64. ``orientation``: direction in which the pattern varies, radians in [0, π), from the
        x axis (right) towards the y axis (down). ``frequency``: periods per image side in that direction, so a stripe
        pattern without warp has its Fourier peak at frequency · (cos, sin). ``shear``: radians that the second axis
        departs from a right angle. ``aspect``: frequency along the second axis, relative. ``phase_u``, ``phase_v``:
        periods. ``warp``: greatest bending, in periods (0: none; below three
        periods a side, in thirds of the side). ``softness``: width of edges, in periods. ``shape``,
        ``style``: free choices of the pattern, in [0, 1). ``contrast``: 0.6 … 1. ``illumination``: strength of the
        shading, 0 … 0.45, and ``illumination_angle``: its direction. ``noise``: greatest grain, 0 … 0.06 of white.
        ``palette``: background, foreground, accent in sRGB.

        >>> Textures().parameters([0, 1, 2])["orientation"].shape
        torch.Size([3])
        """
        return _parameters(self.seed, self._indices(indices))[0]
