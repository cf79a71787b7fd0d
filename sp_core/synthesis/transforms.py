"""Transforms: what a picture must survive. A transform is ``(Tensor[n,c,h,w], Generator) -> Tensor[n,c,h,w]``.

A picture that drives a unit only when it lies exactly so is an adversarial pattern; one that still does when shifted,
scaled and turned a little is closer to what the unit responds to (Olah et al. 2017; Mordvintsev et al. 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    n, _, h, w = images.shape
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    down, right = shift
    # Where each target pixel comes from, in grid_sample's units: -1 … 1 across the picture, so the axes differ.
    row_x = [cos, sin * h / w, -(cos * right + sin * down) * 2 / w]
    row_y = [-sin * w / h, cos, (sin * right - cos * down) * 2 / h]
    theta = torch.tensor([[row_x, row_y]], dtype=images.dtype, device=images.device)
    grid = F.affine_grid(theta, [1, 1, h, w], align_corners=False)
    return F.grid_sample(images, grid.expand(n, -1, -1, -1), "bilinear", "reflection", align_corners=False)


def usual(size: tuple[int, int], strength: float = 1.0) -> tuple[RandomAffine, ...]:
    """The usual transforms of a picture of ``size`` (h, w): shift ± side / 28, size ± 10 %, turn ± 10°, times strength.

    The shift follows the size: ± 8 pixels suit 224 and would destroy a picture of 32. Strength 0 is none at all.
    """
    if strength == 0:
        return ()
    return (RandomAffine(jitter=strength * min(size) / 28, zoom=0.1 * strength, degrees=10 * strength),)
