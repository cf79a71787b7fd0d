"""Does the spectrum of a weight matrix have a power-law tail, and how sure is its exponent?

Martin and Mahoney (JMLR 22, 2021, "Implicit self-regularization in deep neural networks") fit ``p(λ) ∝ λ^-α`` to the
largest eigenvalues λ = σ² of trained layers. An exponent alone says little: any few dozen numbers have one. So the fit
here comes with its standard error and with the chance that a true power law fits worse. The method is that of Clauset,
Shalizi and Newman, SIAM Review 51, 2009: maximum likelihood (equation 3.1) above the start whose Kolmogorov–Smirnov
distance is the least, and a p-value from synthetic data (section 4.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sp_core.errors import SpError

FEWEST = 10  # eigenvalues in a tail; with fewer the exponent's error is a third of it
_STARTS = 50  # at most so many starts are tried
_SETS = 100  # synthetic sets: p is known to ± 0.05


@dataclass(frozen=True)
class Tail:
    """The power law that fits the largest eigenvalues best.

    Attributes:
        alpha: the exponent of the density, above 1.
        error: its standard error, ``(α − 1) / √count``; it does not know that the start was chosen as well.
        start: the smallest eigenvalue of the tail.
        count: eigenvalues in the tail; total: in all.
        distance: Kolmogorov–Smirnov distance of the tail from the law, in [0, 1].
        p: share of synthetic power-law spectra that fit worse. Below 0.1 the law is ruled out; above, it is possible,
            and so may be other laws.
    """

    alpha: float
    error: float
    start: float
    count: int
    total: int
    distance: float
    p: float


def power_law_tail(singular_values: Tensor, seed: int = 0) -> Tail:
    """Fit the tail of the eigenvalues ``σ²`` of one matrix; ``seed`` draws the synthetic spectra.

    Raises:
        SpError: fewer than 20 singular values are above zero.

    >>> import torch
    >>> quantiles = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    >>> fit = power_law_tail((1 - quantiles) ** -0.25)  # σ² with density ∝ λ^-3
    >>> abs(fit.alpha - 3) < 2 * fit.error, fit.p > 0.1
    (True, True)
    """
    values = np.sort(singular_values.detach().double().cpu().numpy() ** 2)
    values = values[values > 1e-12 * values[-1]] if len(values) else values
    if len(values) < 2 * FEWEST:
        raise SpError(f"A tail is fitted to at least {2 * FEWEST} singular values above zero; there are {len(values)}.")
    alpha, at, distance = _fit(values)
    count = len(values) - at
    rng = np.random.default_rng(seed)
    worse = 0
    for _ in range(_SETS):
        inside = rng.random(len(values)) < count / len(values)
        tail = values[at] * (1 - rng.random(len(values))) ** (-1 / (alpha - 1))
        body = rng.choice(values[:at], len(values)) if at else tail
        worse += _fit(np.sort(np.where(inside, tail, body)))[2] >= distance
    error = (alpha - 1) / math.sqrt(count)
    return Tail(alpha, error, float(values[at]), count, len(values), distance, worse / _SETS)


def _fit(values: np.ndarray) -> tuple[float, int, float]:
    """Exponent, index of the start and distance, for ascending values: the start with the least distance."""
    last = len(values) - FEWEST
    best = (math.nan, 0, math.inf)
    logs = np.log(values)
    for at in np.unique(np.linspace(0, last, min(_STARTS, last + 1)).astype(int)):
        over = logs[at:] - logs[at]
        total = over.sum()
        if total <= 0:  # all equal
            continue
        alpha = 1 + len(over) / total
        law = 1 - np.exp((1 - alpha) * over)
        steps = np.arange(len(over) + 1) / len(over)
        distance = float(max(np.abs(steps[1:] - law).max(), np.abs(steps[:-1] - law).max()))
        if distance < best[2]:
            best = (float(alpha), int(at), distance)
    return best
