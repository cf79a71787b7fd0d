"""Bundled pictures, made by arithmetic: something true to look at before anyone uploads anything.

Each is 512×512 RGB and always the same. A zone plate holds every orientation and every frequency once, so a filter's
response map on it *is* its tuning curve; a quilt holds many textures; a landscape holds large shapes with soft edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sp_core.errors import SpError

SIZE = 512
NAMES = ("quilt", "zone-plate", "landscape")


def picture(name: str) -> Image.Image:
    """The scene called ``name``: RGB, 512×512.

    >>> picture("zone-plate").size
    (512, 512)
    """
    makers = {"quilt": _quilt, "zone-plate": _zone_plate, "landscape": _landscape}
    if name not in makers:
        raise SpError(f"'{name}' is not a bundled picture; choose one of {', '.join(NAMES)}.")
    return makers[name]()


def _quilt() -> Image.Image:
    """Sixteen textures in a 4×4 grid, each of another class."""
    from sp_core.datasets.textures import Textures

    textures = Textures(count=4096, seed=7, size=SIZE // 4)
    _, labels = textures.batch(0, 200)
    first = {int(label): index for index, label in reversed(list(enumerate(labels)))}
    sheet = Image.new("RGB", (SIZE, SIZE))
    for place, label in enumerate(sorted(first)[:16]):
        at = (place % 4 * SIZE // 4, place // 4 * SIZE // 4)
        sheet.paste(textures.picture(first[label], size=SIZE // 4), at)
    return sheet


def _zone_plate() -> Image.Image:
    """cos(π f r² / R): the local frequency is f·r/R cycles a pixel, from 0 at the centre to f at the radius R.

    f = 1/20 at half the width keeps the rings apart even where the picture is reduced to 64 pixels. Hue turns twice
    with the angle, so that colour and orientation are tied.
    """
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64) - (SIZE - 1) / 2
    wave = 0.5 + 0.5 * np.cos(np.pi / 20 / (SIZE / 2) * (x * x + y * y))
    angle = np.arctan2(y, x)
    colour = np.stack([0.5 + 0.5 * np.cos(2 * angle - shift) for shift in (0, 2 * np.pi / 3, 4 * np.pi / 3)], axis=-1)
    return _to_image(wave[..., None] * (0.35 + 0.65 * colour))


def _landscape() -> Image.Image:
    """A sun over seven ridges of hills that fade with distance."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64) / SIZE
    sky = np.stack([0.98 - 0.45 * (1 - y), 0.80 - 0.35 * (1 - y), 0.62 + 0.15 * (1 - y)], axis=-1)
    sun = np.clip((0.085 - np.hypot(x - 0.68, y - 0.30)) * 90, 0, 1)[..., None]
    canvas = sky * (1 - sun) + np.array([1.0, 0.93, 0.72]) * sun
    for ridge in range(7):
        near = ridge / 6
        height = 0.40 + 0.085 * ridge + 0.09 * (1 - 0.5 * near) * _fractal(rng, SIZE)
        ground = np.array([0.55, 0.50, 0.62]) * (1 - near) + np.array([0.07, 0.20, 0.16]) * near
        texture = 1 + 0.10 * near * rng.standard_normal((SIZE, SIZE, 1))
        mask = np.clip((y - height[None, :]) * SIZE / 1.5, 0, 1)[..., None]
        canvas = canvas * (1 - mask) + ground * texture * mask
    return _to_image(canvas)


def _fractal(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A line whose spectrum falls as 1/f, in about −1…1: the outline of hills."""
    spectrum = rng.standard_normal(24) + 1j * rng.standard_normal(24)
    frequency = np.arange(1, 25)
    at = np.arange(count) / count
    line = (spectrum[:, None] / frequency[:, None] * np.exp(2j * np.pi * frequency[:, None] * at)).real.sum(0)
    return line / np.abs(line).max()


def _to_image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
