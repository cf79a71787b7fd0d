"""Transforms: what a picture must survive. A transform is ``(Tensor[n,c,h,w], Generator) -> Tensor[n,c,h,w]``.

A picture that drives a unit only when it lies exactly so is an adversarial pattern; one that still does when shifted,
scaled and turned a little is closer to what the unit responds to (Olah et al. 2017; Mordvintsev et al. 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RandomAffine:
    """Shift, scale and turn at random, in one bilinear resampling; what comes in from outside is reflected.

    Attributes:
        jitter: largest shift along each axis, in pixels.
        zoom: largest relative change of size; 0.1 means 0.9 to 1.1.
        degrees: largest turn either way.
    """

    jitter: float
    zoom: float
    degrees: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images ``[n, c, h, w]``, all resampled by the same random map, which is drawn from ``generator``."""
        shift_y, shift_x, zoom, turn = (2 * torch.rand(4, generator=generator, dtype=torch.float64) - 1).tolist()
        shift = (shift_y * self.jitter, shift_x * self.jitter)
        return resample(images, shift, math.exp(zoom * math.log1p(self.zoom)), turn * self.degrees)


def resample(images: Tensor, shift: tuple[float, float] = (0, 0), zoom: float = 1, degrees: float = 0) -> Tensor:
    """Move the content ``shift = (down, right)`` pixels, after enlarging it ``zoom`` times and turning it clockwise.

    Bilinear, about the centre, the outside reflected; the identity is exact.

    >>> bool((resample(torch.eye(4)[None, None], (0, 1))[0, 0, 0] == torch.tensor([1, 1, 0, 0])).all())
    True
    """
    n, c, h, w = images.shape
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    down, right = shift
    # Where each target pixel comes from, in grid_sample's units: -1 … 1 across the picture, so the axes differ. As
    # complex numbers x + iy, so that the whole grid is one sum of a row and a column.
    along = complex(cos, -sin * w / h)
    across = complex(sin * h / w, cos)
    start = complex(-(cos * right + sin * down) * 2 / w, (sin * right - cos * down) * 2 / h)
    kind = torch.complex128 if images.dtype == torch.float64 else torch.complex64
    row, column = (_centres(length, kind, images.device) for length in (w, h))
    grid = torch.view_as_real((row * along + start) + (column * across)[:, None]).to(images.dtype)
    planes = images.reshape(1, n * c, h, w)  # as channels of one picture they share the work on the grid
    return F.grid_sample(planes, grid[None], "bilinear", "reflection", align_corners=False).view(images.shape)


@lru_cache(maxsize=32)
def _centres(length: int, kind: torch.dtype, device: torch.device) -> Tensor:
    """The centres of ``length`` pixels that fill -1 … 1."""
    return ((2 * torch.arange(length, device=device) + 1) / length - 1).to(kind)


def usual(size: tuple[int, int], strength: float = 1.0) -> tuple[RandomAffine, ...]:
    """The usual transforms of a picture of ``size`` (h, w): shift ± side / 28, size ± 10 %, turn ± 10°, times strength.

    The shift follows the size: ± 8 pixels suit 224 and would destroy a picture of 32. Strength 0 is none at all.
    """
    if strength == 0:
        return ()
    return (RandomAffine(jitter=strength * min(size) / 28, zoom=0.1 * strength, degrees=10 * strength),)
