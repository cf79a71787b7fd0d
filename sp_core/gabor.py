"""Gabor functions: many fitted at once to small patterns, by Levenberg–Marquardt with the derivatives written out.

The model (Daugman 1985, "Uncertainty relation for resolution in space, spatial frequency, and orientation"), with y
pointing *up* and pixel units::

    across = (x - x0) cos θ + (y - y0) sin θ          along the wave
    along  = (y - y0) cos θ - (x - x0) sin θ          along the stripes
    g      = A exp(-across² / 2σ_across² - along² / 2σ_along²) cos(2π f across + φ)

**Orientation** θ is the direction in which the values change, counter-clockwise on the screen, in [0°, 180°): 0° is
vertical stripes, 90° horizontal stripes, 45° stripes from top left to bottom right. **Phase** φ belongs to the centre
of the envelope: 0° is a bright bar, ±180° a dark bar, ±90° an edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.errors import SpError

LOWEST, HIGHEST = 0.01, math.sqrt(0.5)  # cycles a pixel; √½ is the corner of the square that pixels can carry
STEPS = 40
_FREE = 8  # x0, y0, θ, f, log σ_across, log σ_along, and the cosine and sine amplitudes


@dataclass(frozen=True)
class Gabors:
    """The best-fitting Gabor function of each of n patterns.

    All are float64 tensors ``[n]``. A pattern of zeros has NaN everywhere.

    Attributes:
        orientation: degrees in [0, 180), see the module.
        frequency: cycles a pixel, in [0.01, 0.707].
        phase: degrees in (-180, 180].
        sigma_across, sigma_along: standard deviations of the envelope, pixels, across and along the stripes.
        x, y: the centre of the envelope, pixels from the middle of the pattern, x to the right and y up.
        amplitude: of the wave at the centre, in the units of the pattern; positive.
        r2: ``1 - ‖pattern - fit‖² / ‖pattern‖²``; 1 is a perfect fit. Measured about zero, not about the mean.
        patterns: the fitted functions ``[n, h, w]``, on the grid of the patterns.
    """

    orientation: Tensor
    frequency: Tensor
    phase: Tensor
    sigma_across: Tensor
    sigma_along: Tensor
    x: Tensor
    y: Tensor
    amplitude: Tensor
    r2: Tensor
    patterns: Tensor


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates ``x, y`` of every pixel, ``[h·w]`` float64, zero in the middle, x to the right and y *up*."""
    rows = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x.flatten(), y.flatten()


def gabor(
    height: int,
    width: int,
    *,
    orientation: float,
    frequency: float,
    phase: float = 0.0,
    sigma: float | tuple[float, float] = 2.0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """One Gabor function of amplitude 1 as ``[height, width]`` float64; angles in degrees, see the module.

    >>> gabor(5, 5, orientation=0, frequency=0.25).argmax().item()  # a bright vertical bar through the middle
    12
    """
    across, along = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    x, y = grid(height, width)
    angle, shift = math.radians(orientation), math.radians(phase)
    values = [centre[0], centre[1], angle, frequency, math.log(across), math.log(along)]
    free = torch.tensor([[*values, math.cos(shift), -math.sin(shift)]], dtype=torch.float64)
    return _model(free, x, y).value.view(height, width)


@dataclass(frozen=True)
class _Parts:
    """The model and what its derivatives need, each ``[n, pixels]``."""

    value: Tensor
    envelope: Tensor
    across: Tensor
    along: Tensor
    cosine: Tensor
    sine: Tensor


def _model(free: Tensor, x: Tensor, y: Tensor) -> _Parts:
    x0, y0, angle, frequency, log_across, log_along, a, b = (column[:, None] for column in free.unbind(1))
    across = (x - x0) * angle.cos() + (y - y0) * angle.sin()
    along = (y - y0) * angle.cos() - (x - x0) * angle.sin()
    envelope = (-0.5 * (across / log_across.exp()) ** 2 - 0.5 * (along / log_along.exp()) ** 2).exp()
    turn = 2 * math.pi * frequency * across
    cosine, sine = turn.cos(), turn.sin()
    return _Parts(envelope * (a * cosine + b * sine), envelope, across, along, cosine, sine)


def _jacobian(free: Tensor, parts: _Parts) -> Tensor:
    """Derivatives of the model ``[n, pixels, 8]``, written out: automatic ones cost ten times as much here."""
    _, _, angle, frequency, log_across, log_along, a, b = (column[:, None] for column in free.unbind(1))
    e, across, along = parts.envelope, parts.across, parts.along
    wave = 2 * math.pi * (b * parts.cosine - a * parts.sine)  # per unit of f·across
    d_across = e * frequency * wave - parts.value * across * (-2 * log_across).exp()
    d_along = -parts.value * along * (-2 * log_along).exp()
    return torch.stack(
        [
            -d_across * angle.cos() + d_along * angle.sin(),
            -d_across * angle.sin() - d_along * angle.cos(),
            d_across * along - d_along * across,
            e * wave * across,
            parts.value * across**2 * (-2 * log_across).exp(),
            parts.value * along**2 * (-2 * log_along).exp(),
            e * parts.cosine,
            e * parts.sine,
        ],
        dim=2,
    )


def _amplitudes(free: Tensor, patterns: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The best cosine and sine amplitudes for the other parameters (linear least squares), and the squared error."""
    parts = _model(free, x, y)
    basis = torch.stack([parts.envelope * parts.cosine, parts.envelope * parts.sine], dim=2)
    normal = basis.mT @ basis + 1e-9 * torch.eye(2, dtype=torch.float64)
    best = torch.linalg.solve(normal, basis.mT @ patterns[:, :, None])
    return best[:, :, 0], (patterns - (basis @ best)[:, :, 0]).square().sum(1)


def _starts(patterns: Tensor, peak: tuple[Tensor, Tensor], x: Tensor, y: Tensor, size: int) -> Tensor:
    """The best two of a grid of envelopes and frequencies for every pattern: ``[n·2, 8]``, pattern by pattern."""
    angle, frequency = peak
    energy = patterns.square() / patterns.square().sum(1, keepdim=True).clamp_min(1e-300)
    centre = torch.stack([(energy * x).sum(1), (energy * y).sum(1)], dim=1)
    candidates, errors = [], []
    for middle in (centre, torch.zeros_like(centre)):
        for across, along in ((0.14, 0.14), (0.14, 0.28), (0.22, 0.22), (0.22, 0.45), (0.45, 0.45)):
            for factor in (1.0, 0.6):
                for turn in (0.0, math.pi / 2) if factor < 1 else (0.0,):  # a blob's peak says little of its angle
                    shape = torch.tensor([across, along], dtype=torch.float64).mul(size).clamp_min(0.5).log()
                    wave = (frequency * factor).clamp(0.2 / size, HIGHEST)
                    free = torch.cat([middle, (angle + turn)[:, None], wave[:, None], shape.expand(len(angle), 2)], 1)
                    free = torch.cat([free, torch.zeros_like(middle)], 1)
                    best, error = _amplitudes(free, patterns, x, y)
                    candidates.append(torch.cat([free[:, :6], best], 1))
                    errors.append(error)
    order = torch.stack(errors, 1).argsort(dim=1)[:, :2]
    rows = torch.stack(candidates, 1)  # [n, candidates, 8]
    return rows.gather(1, order[:, :, None].expand(-1, -1, _FREE)).flatten(0, 1)


def _limit(free: Tensor, half: Tensor, size: int) -> Tensor:
    """Keep the centre on the pattern, the frequency between the limits and the envelope neither a point nor a plain."""
    free = free.clone()
    free[:, 0:2] = free[:, 0:2].clamp(-half, half)
    free[:, 3] = free[:, 3].clamp(LOWEST, HIGHEST)
    free[:, 4:6] = free[:, 4:6].clamp(math.log(0.4), math.log(2.0 * size))
    return free


def fit_gabors(patterns: Tensor, orientation: Tensor, frequency: Tensor) -> Gabors:
    """Fit a Gabor function to each of the ``patterns`` ``[n, h, w]``, all of them at once.

    Started from ``orientation`` (degrees) and ``frequency`` (cycles a pixel) ``[n]``, as the Fourier spectrum gives
    them (NaN: unknown), with the best two of a small grid of envelopes; then 40 Levenberg–Marquardt steps each
    (Marquardt 1963), damped for every pattern by itself. Deterministic. A local optimum, as every such fit.

    Raises:
        SpError: the patterns are smaller than 3×3, so that eight parameters cannot be found.

    >>> pattern = gabor(11, 11, orientation=30, frequency=0.2, phase=90)[None]
    >>> found = fit_gabors(pattern, torch.tensor([25.0]), torch.tensor([0.18]))
    >>> round(found.orientation.item()), round(found.frequency.item(), 2), round(found.r2.item(), 4)
    (30, 0.2, 1.0)
    """
    count, height, width = patterns.shape
    if min(height, width) < 3:
        raise SpError(f"A Gabor function needs a kernel of at least 3×3 to be fitted; these are {height}×{width}.")
    flat = patterns.detach().to("cpu", torch.float64).reshape(count, -1)
    scale = flat.norm(dim=1, keepdim=True)
    alive = (scale[:, 0] > 0) & scale[:, 0].isfinite()
    unit = torch.where(alive[:, None], flat / scale, torch.ones_like(flat))
    x, y = grid(height, width)
    angle = torch.deg2rad(orientation.to("cpu", torch.float64).nan_to_num(0.0))
    wave = frequency.to("cpu", torch.float64).nan_to_num(0.0)
    size = max(height, width)
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    free, error = _refine(
        _starts(unit, (angle, wave), x, y, size), unit.repeat_interleave(2, 0), x, y, lambda p: _limit(p, half, size)
    )
    best = error.view(count, 2).argmin(1) + 2 * torch.arange(count)
    fitted = _model(free[best], x, y).value.view(count, height, width)
    return _answer(free[best], error[best], scale[:, 0], alive, fitted)


def _refine(
    free: Tensor, target: Tensor, x: Tensor, y: Tensor, limit: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Levenberg–Marquardt: a step that does not lower a pattern's error is not taken, and its damping grows."""
    parts = _model(free, x, y)
    error = (parts.value - target).square().sum(1)
    damping = torch.full_like(error, 1e-2)
    eye = torch.eye(_FREE, dtype=torch.float64)
    for _ in range(STEPS):
        jacobian = _jacobian(free, parts)
        normal = jacobian.mT @ jacobian
        slope = (jacobian.mT @ (parts.value - target)[:, :, None])[:, :, 0]
        stiff = normal + damping[:, None, None] * (normal.diagonal(dim1=1, dim2=2)[:, :, None] * eye + 1e-9 * eye)
        trial = limit(free - torch.linalg.solve(stiff, slope))
        trial_parts = _model(trial, x, y)
        trial_error = (trial_parts.value - target).square().sum(1)
        better = trial_error < error
        free = torch.where(better[:, None], trial, free)
        error = torch.where(better, trial_error, error)
        damping = torch.where(better, damping / 4, damping * 6).clamp(1e-9, 1e6)
        parts = _model(free, x, y)
    return free, error


def _answer(free: Tensor, error: Tensor, scale: Tensor, alive: Tensor, fitted: Tensor) -> Gabors:
    nan = torch.full_like(error, math.nan)

    def where_alive(values: Tensor) -> Tensor:
        return torch.where(alive, values, nan)

    amplitude = free[:, 6:8].norm(dim=1) * scale
    # Turning a wave by 180° turns its phase over; the orientation is kept in [0°, 180°).
    angle = torch.rad2deg(free[:, 2]) % 360
    over = angle >= 180
    phase = torch.rad2deg(torch.atan2(-free[:, 7], free[:, 6]))
    return Gabors(
        orientation=where_alive(torch.where(over, angle - 180, angle)),
        frequency=where_alive(free[:, 3]),
        phase=where_alive(torch.where(over, -phase, phase)),
        sigma_across=where_alive(free[:, 4].exp()),
        sigma_along=where_alive(free[:, 5].exp()),
        x=where_alive(free[:, 0]),
        y=where_alive(free[:, 1]),
        amplitude=where_alive(amplitude),
        r2=where_alive(1 - error),
        patterns=torch.where(alive[:, None, None], fitted * scale[:, None, None], nan[:, None, None]),
    )
