"""What a random weight of the same size would have for singular values: the band behind every spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sp_core.weights.spectra import Spectrum, gram_values

_DRAWN = 1024  # the smaller side up to which random spectra are drawn; beyond, the limit law is exact enough


@dataclass(frozen=True, eq=False)
class Band:
    """What the singular values of a random Gaussian matrix of Frobenius norm 1 are, largest first.

    Kaiming and every other Gaussian initialisation has this spectrum, up to the factor ``‖W‖_F``.

    Attributes:
        low, mean, high: float64 ``[min(rows, columns)]``: smallest, mean and largest of the draws at each place. For
            the limit law all three are the same.
        law: ``"draws"`` or ``"limit"``.
    """

    low: Tensor
    mean: Tensor
    high: Tensor
    law: str


@lru_cache(maxsize=256)
def random_band(rows: int, columns: int, seed: int = 0) -> Band:
    """The spectrum of a ``rows × columns`` Gaussian matrix scaled to Frobenius norm 1.

    Up to 1024 on the smaller side it is drawn, 20 times (8 above 256): not the matrix, but a bidiagonal one of
    chi-distributed numbers with the same singular values in distribution (Dumitriu and Edelman 2002, "Matrix models
    for beta ensembles"), so that the longer side costs nothing. Beyond, the law of Marchenko and Pastur 1967.

    >>> band = random_band(16, 64)
    >>> len(band.mean), bool((band.low <= band.high).all())
    (16, True)
    """
    side, length = min(rows, columns), max(rows, columns)
    if side > _DRAWN:
        law = _marchenko_pastur(side, length)
        return Band(law, law, law, "limit")
    rng = np.random.default_rng(seed)
    draws = 20 if side <= 256 else 8
    values = gram_values(torch.from_numpy(np.stack([_bidiagonal(side, length, rng) for _ in range(draws)])))
    values = values / values.norm(dim=1, keepdim=True)
    return Band(values.amin(0), values.mean(0), values.amax(0), "draws")


def band_of(row: Spectrum) -> Band:
    """What a random Gaussian weight in the place of ``row`` has, scaled as ``row.values`` of norm 1 are.

    The k·k matrices of ``"positions"`` are independent; the blocks of ``"operator"`` are k·k independent complex ones,
    seen at more frequencies, so that many are drawn (at most 1024 values of each group in all). Of such pooled
    values the band is at as many places as were drawn, from the largest to the smallest.
    """
    if row.matrix == "flat":
        return random_band(row.rows, row.columns)
    count, kinds = math.prod(row.shape[2:]), 2 if row.matrix == "operator" else 1
    band = _pooled_band(*sorted(row.block), count, kinds)
    scale = math.sqrt(len(band.mean) / len(row.values))
    return Band(band.low * scale, band.mean * scale, band.high * scale, band.law)


@lru_cache(maxsize=256)
def _pooled_band(side: int, length: int, count: int, freedom: int, seed: int = 0) -> Band:
    if side > _DRAWN:
        law = _marchenko_pastur(side, length)
        return Band(law, law, law, "limit")
    rng, draws, blocks = np.random.default_rng(seed), 8, max(1, min(count, _DRAWN // side))
    drawn = np.stack([_bidiagonal(side, length, rng, freedom) for _ in range(draws * blocks)])
    values = gram_values(torch.from_numpy(drawn)).view(draws, -1).sort(1, descending=True).values
    values = values / values.norm(dim=1, keepdim=True)
    return Band(values.amin(0), values.mean(0), values.amax(0), "draws")


def _bidiagonal(side: int, length: int, rng: np.random.Generator, freedom: int = 1) -> np.ndarray:
    """Singular values as a Gaussian matrix; ``freedom`` is 1 for real entries, 2 for complex ones."""
    matrix = np.diag(np.sqrt(rng.chisquare(freedom * np.arange(length, length - side, -1))))
    if side > 1:
        matrix += np.diag(np.sqrt(rng.chisquare(freedom * np.arange(side - 1, 0, -1))), -1)
    return matrix


def _marchenko_pastur(side: int, length: int) -> Tensor:
    """Quantiles at ``(i - ½) / side`` of the limit law, as singular values of a matrix of Frobenius norm 1."""
    ratio = side / length
    # λ = 1 + q + 2√q cos t takes the square-root ends of the density away.
    t = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    eigenvalue = 1 + ratio + 2 * math.sqrt(ratio) * t.cos()
    density = t.sin().square() / eigenvalue.clamp_min(1e-12)
    above = torch.cumulative_trapezoid(density, t)
    above = torch.cat([torch.zeros(1, dtype=torch.float64), above]) / above[-1]
    wanted = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    at = torch.searchsorted(above, wanted).clamp(1, len(above) - 1)
    share = (wanted - above[at - 1]) / (above[at] - above[at - 1]).clamp_min(1e-300)
    values = (eigenvalue[at - 1] + share * (eigenvalue[at] - eigenvalue[at - 1])).clamp_min(0).sqrt()
    return values / values.norm()
