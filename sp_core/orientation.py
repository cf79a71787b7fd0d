"""Orientation, spatial frequency and bandwidth of filters, from the peak of their Fourier spectra.

The power spectrum of a filter, summed over its input channels, is the transform of its autocorrelation, which is an
even function of a few hundred values. So the spectrum is sampled where it is wanted, on a polar grid, by one product
with a matrix of cosines: all filters of a layer at once, and no zero-padded transform of each channel.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

RADII = 69  # 0 to √½ cycles a pixel in steps of 1/96 (the last is shorter); ½ is one of them


@lru_cache(maxsize=8)
def _polar(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Angles (radians), radii (cycles a pixel) and cosines of a polar grid of frequencies.

    The cosines ``[shifts, angles·radii]`` turn one half of an autocorrelation, an even function, into a power spectrum.
    """
    angles = torch.arange(72 if height > 1 else 1, dtype=torch.float64) * (math.pi / 72)
    radii = torch.arange(RADII if height > 1 else 49, dtype=torch.float64).div(96).clamp(max=math.sqrt(0.5))
    up = torch.arange(height - 1, -height, -1, dtype=torch.float64)
    right = torch.arange(1 - width, width, dtype=torch.float64)
    fx = (angles.cos()[:, None] * radii).flatten()
    fy = (angles.sin()[:, None] * radii).flatten()
    shifts = torch.cartesian_prod(up, right)[: _half(height, width)]
    cosines = (2 * math.pi * (shifts[:, :1] * fy + shifts[:, 1:] * fx)).cos()
    cosines[:-1] *= 2  # the other half is the same
    return angles, radii, cosines


def _half(height: int, width: int) -> int:
    """How many shifts there are up to the one of nothing, which is in the middle of an autocorrelation."""
    return ((2 * height - 1) * (2 * width - 1) + 1) // 2


def _autocorrelation(weight: Tensor) -> Tensor:
    """Of each filter, summed over input channels: ``[n, 2h-1, 2w-1]``."""
    _, channels, height, width = weight.shape
    size = (2 * height, 2 * width)
    some = max(1, 2**22 // (channels * size[0] * size[1]))
    parts = []
    for part in weight.split(some):
        power = torch.fft.rfft2(part, s=size).abs().square().sum(1)
        parts.append(torch.fft.irfft2(power, s=size).roll((height, width), (1, 2))[:, 1:, 1:])
    return torch.cat(parts)


def spectral_peaks(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orientation, frequency and bandwidth ``[n]`` of the highest peak of the spectra of filters ``[n, in, h, w]``.

    Orientation is in degrees, [0, 180), as :mod:`sp_core.gabor` defines it, NaN for a blob (a peak below half a cycle
    across the kernel) and for filters of height 1. Frequency is in cycles a pixel, NaN for zeros and 1×1.
    Bandwidth is in octaves at half amplitude; NaN when the amplitude does not fall to half on both sides.

    The power is sampled every 2.5° and every 1/96 cycle a pixel; the peak is then refined by a parabola through its
    neighbours. Frequencies above ½ in x or y do not exist on a pixel grid and are left out; where one is exactly ½,
    the mirrored orientation would be the same pattern (a chequerboard is at 45° and at 135°).

    >>> from sp_core.gabor import gabor
    >>> angle, frequency, octaves = spectral_peaks(gabor(11, 11, orientation=60, frequency=0.2)[None, None])
    >>> round(angle.item()), round(frequency.item(), 2), round(octaves.item(), 1)
    (60, 0.2, 1.5)
    """
    height, width = weight.shape[2:]
    angles, radii, cosines = _polar(height, width)
    power = (
        (_autocorrelation(weight).flatten(1)[:, : len(cosines)] @ cosines)
        .view(-1, len(angles), len(radii))
        .clamp_min(0)
    )
    exists = (radii * torch.maximum(angles.cos().abs(), angles.sin().abs())[:, None]) <= 0.5 + 1e-9
    power = power.where(exists, -1.0)
    best = power.flatten(1).argmax(1)
    a, r = best // len(radii), best % len(radii)
    n = torch.arange(len(weight))
    around = [power[n, (a + step) % len(angles), r] for step in (-1, 0, 1)]
    orientation = torch.rad2deg(angles[a]) + 2.5 * _vertex(*around)
    along = [power[n, a, (r + step).clamp(0, len(radii) - 1)] for step in (-1, 0, 1)]
    inside = (r > 0) & (r < len(radii) - 1) & (along[2] >= 0)
    frequency = radii[r] + (radii[1] - radii[0]) * torch.where(inside, _vertex(*along), 0.0)
    blob = (frequency < 0.5 / max(height, width)) | (along[1] <= 0)
    orientation = orientation % 180
    orientation = torch.where(orientation >= 180, 0.0, orientation)  # -1e-14 % 180 is 180 in floating point
    orientation = torch.where(blob, math.nan, orientation)
    known = weight.flatten(1).any(1) & (max(height, width) > 1)
    frequency = torch.where(known, frequency, math.nan)
    return orientation if height > 1 else orientation * math.nan, frequency, _bandwidth(power[n, a], r, radii)


def _vertex(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Where the parabola through three equidistant values has its top, in steps from the middle one."""
    bend = left - 2 * middle + right
    return torch.where(bend < 0, (0.5 * (left - right) / bend.clamp(max=-1e-300)).clamp(-0.5, 0.5), 0.0)


def _bandwidth(profile: Tensor, peak: Tensor, radii: Tensor) -> Tensor:
    """Octaves between the half-amplitude points (a quarter of the power) of radial profiles ``[n, radii]``."""
    steps = torch.arange(len(radii))
    n = torch.arange(len(profile))
    quarter = profile[n, peak][:, None] / 4
    below = (profile < quarter) & (profile >= 0)
    low = torch.where(below & (steps < peak[:, None]), steps, -1).amax(1)
    high = torch.where(below & (steps > peak[:, None]), steps, len(radii)).amin(1)
    known = (low >= 0) & (high < len(radii))
    low, high = low.clamp(0, len(radii) - 2), high.clamp(1, len(radii) - 1)

    def crossing(inner: Tensor, outer: Tensor) -> Tensor:
        inside, outside = profile[n, inner], profile[n, outer]
        share = (inside - quarter[:, 0]) / (inside - outside).clamp_min(1e-300)
        return radii[inner] + share * (radii[outer] - radii[inner])

    octaves = (crossing(high - 1, high) / crossing(low + 1, low).clamp_min(1e-12)).clamp_min(1e-12).log2()
    return torch.where(known, octaves, math.nan)
