"""Gabor fits against functions whose parameters are known, and the orientation convention against plain stripes."""

import math

import pytest
import torch

from sp_core.errors import SpError
from sp_core.gabor import _jacobian, _model, fit_gabors, gabor, grid
from sp_core.orientation import spectral_peaks


def _apart(a: torch.Tensor, b: torch.Tensor, period: float) -> torch.Tensor:
    return ((a - b + period / 2) % period - period / 2).abs()


def test_the_formula_is_that_of_the_docstring():
    x, y = grid(5, 7)
    got = gabor(5, 7, orientation=30, frequency=0.15, phase=50, sigma=(1.5, 2.5), centre=(0.5, -0.25)).flatten()
    for i in range(35):
        dx, dy, t = x[i].item() - 0.5, y[i].item() + 0.25, math.radians(30)
        across, along = dx * math.cos(t) + dy * math.sin(t), dy * math.cos(t) - dx * math.sin(t)
        envelope = math.exp(-(across**2) / (2 * 1.5**2) - along**2 / (2 * 2.5**2))
        assert got[i].item() == pytest.approx(envelope * math.cos(2 * math.pi * 0.15 * across + math.radians(50)))


def test_orientation_convention_on_the_screen():
    upright = gabor(9, 9, orientation=0, frequency=0.25, sigma=100.0)
    assert torch.allclose(upright[0], upright[5], atol=1e-2)  # vertical stripes: every row is the same
    level = gabor(9, 9, orientation=90, frequency=0.25, sigma=100.0)
    assert torch.allclose(level[:, 0], level[:, 5], atol=1e-2)
    falling = gabor(9, 9, orientation=45, frequency=0.2, sigma=100.0)
    assert torch.allclose(falling[1:, 1:], falling[:-1, :-1], atol=1e-2)  # constant from top left to bottom right
    assert not torch.allclose(falling[1:, :-1], falling[:-1, 1:], atol=0.1)


def test_known_gabors_are_found():
    rng = torch.Generator().manual_seed(1)
    n = 60
    angle = torch.rand(n, generator=rng, dtype=torch.float64) * 180
    frequency = 0.1 + 0.25 * torch.rand(n, generator=rng, dtype=torch.float64)
    phase = torch.rand(n, generator=rng, dtype=torch.float64) * 360 - 180
    patterns = torch.stack(
        [
            3 * gabor(11, 11, orientation=a, frequency=f, phase=p, sigma=(1.8, 2.6), centre=(0.4, -0.3))
            for a, f, p in zip(angle.tolist(), frequency.tolist(), phase.tolist(), strict=True)
        ]
    )
    angles, frequencies, _ = spectral_peaks(patterns[:, None])
    found = fit_gabors(patterns, angles, frequencies)
    good = found.r2 > 1 - 1e-9
    assert good.float().mean() > 0.95  # the rest may sit in a local optimum, which is still a good fit
    assert found.r2.min() > 0.97
    assert _apart(found.orientation, angle, 180)[good].max() < 1e-3
    assert (found.frequency - frequency).abs()[good].max() < 1e-5
    assert (found.amplitude[good] - 3).abs().max() < 1e-3
    assert (found.sigma_across[good] - 1.8).abs().max() < 1e-3
    assert (found.sigma_along[good] - 2.6).abs().max() < 1e-3
    assert (found.x[good] - 0.4).abs().max() < 1e-3
    # A wave turned by 180° has the opposite phase; away from the wrap the phase is the one that was put in.
    assert _apart(found.phase, phase, 360)[good].max() < 1e-2


def test_r2_is_that_of_the_fitted_pattern():
    noise = torch.randn(5, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = fit_gabors(noise, torch.full((5,), 20.0), torch.full((5,), 0.2))
    left = (noise - found.patterns).square().sum((1, 2)) / noise.square().sum((1, 2))
    assert torch.allclose(1 - left, found.r2)
    assert found.r2.max() < 0.9  # noise is no Gabor function
    assert ((found.orientation >= 0) & (found.orientation < 180)).all()


def test_derivatives_agree_with_automatic_ones():
    x, y = grid(5, 5)
    free = torch.tensor([[0.3, -0.2, 0.7, 0.18, 0.5, 0.8, 1.1, -0.6]], dtype=torch.float64)
    automatic = torch.autograd.functional.jacobian(lambda p: _model(p, x, y).value, free)
    assert torch.allclose(automatic[0, :, 0], _jacobian(free, _model(free, x, y))[0], atol=1e-12)


def test_zero_pattern_is_nan_and_leaves_the_others_alone():
    good = gabor(7, 7, orientation=10, frequency=0.2)
    found = fit_gabors(torch.stack([torch.zeros(7, 7), good]), torch.tensor([math.nan, 10]), torch.tensor([0.0, 0.2]))
    assert found.r2[0].isnan() and found.patterns[0].isnan().all()
    assert found.r2[1] > 0.999


def test_small_kernels_are_refused():
    with pytest.raises(SpError, match="at least 3×3 to be fitted; these are 2×5"):
        fit_gabors(torch.ones(1, 2, 5), torch.zeros(1), torch.zeros(1))
