"""Singular values of weight matrices, ranks that follow from them, and what a random matrix would have.

A convolution ``[out, in, k, k]`` is not one matrix. It is read as the flat one ``[out, in·k·k]`` (what patches are
multiplied with) or as k·k matrices ``[out, in]``, one a kernel position (as WeightWatcher does). Neither holds the
singular values of the convolution as an operator on images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights.matrices import Weight, matrices

VIEWS = ("flat", "positions")
_CHUNK = 2**24  # float64 numbers at a time: 128 MB
_DRAWN = 1024  # the smaller side up to which random spectra are drawn; beyond, the limit law is exact enough


def gram_values(matrix: Tensor) -> Tensor:
    """Singular values ``[…, min(m, n)]`` of ``[…, m, n]``, descending, float64, by the Gram matrix.

    The eigenvalues of the smaller of ``M Mᵀ`` and ``Mᵀ M`` in float64, added up in pieces: 3 to 5 times faster than an
    SVD. The absolute error is about ``1e-8 σ₁ √n``, so values below that are noise; of float32 weights they are
    anyway. A matrix with NaN or infinity has NaN everywhere.

    >>> gram_values(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [4.0, 3.0]
    """
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    side, length = wide.shape[-2:]
    count = wide.numel() // max(1, side * length)
    gram = torch.zeros(*wide.shape[:-1], side, dtype=torch.float64, device=wide.device)
    for part in wide.split(max(1, _CHUNK // max(1, side * count)), dim=-1):
        part = part.double()
        gram += part @ part.mT
    finite = gram.isfinite().all(-1).all(-1)
    values = torch.linalg.eigvalsh(gram.where(finite[..., None, None], 0.0)).clamp_min(0).sqrt().flip(-1)
    return values.where(finite[..., None], math.nan)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of one flat weight matrix ``[out, in / groups · kernel]``.

    Attributes:
        name: ``"conv1.weight"``; layer: ``"conv1"``; kind: ``"Conv2d"``. Of a gate ``"lstm.weight_hh_l0[f]"``,
            ``"lstm.hh_l0[f]"`` and ``"LSTM"``.
        shape: of the weight.
        values: float64, descending, ``[min(rows, columns)]``, on the CPU. NaN where the weights are not finite.
    """

    name: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    values: Tensor

    @property
    def rows(self) -> int:
        """Output channels."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Inputs of one output: input channels of its group times kernel positions."""
        return math.prod(self.shape[1:])

    @property
    def frobenius(self) -> float:
        """``‖W‖_F``."""
        return float(self.values.square().sum().sqrt())

    @property
    def effective_rank(self) -> float:
        """See :func:`effective_rank`."""
        return effective_rank(self.values)

    @property
    def stable_rank(self) -> float:
        """See :func:`stable_rank`."""
        return stable_rank(self.values)

    def energy_rank(self, share: float) -> int:
        """See :func:`energy_rank`."""
        return energy_rank(self.values, share)


def effective_rank(values: Tensor) -> float:
    """``exp(-Σ p log p)`` with ``p = σ / Σσ``; from 1 to the number of values. 0 for a matrix of zeros.

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    >>> round(effective_rank(torch.ones(4)), 6)
    4.0
    """
    total = values.double().sum()
    if not total.isfinite() or total == 0:
        return 0.0 if total == 0 else math.nan
    share = values.double() / total
    return float(torch.special.entr(share).sum().exp())


def stable_rank(values: Tensor) -> float:
    """``‖W‖_F² / σ₁²``; from 1 to the number of values. 0 for a matrix of zeros.

    Rudelson and Vershynin 2007, "Sampling from large matrices" (there: numerical rank).

    >>> stable_rank(torch.tensor([2.0, 1.0]))
    1.25
    """
    top = float(values.double().max()) if values.numel() else 0.0
    return float(values.double().square().sum()) / top**2 if top != 0 else 0.0


def energy_rank(values: Tensor, share: float) -> int:
    """The smallest r whose r largest values hold ``share`` of ``Σσ²``; 0 for a matrix of zeros, -1 for NaN.

    >>> energy_rank(torch.tensor([2.0, 1.0, 0.0]), 0.9), energy_rank(torch.tensor([3.0, 1.0]), 0.9)
    (2, 1)
    """
    if not 0 < share <= 1:
        raise SpError(f"The share of energy must be above 0 and at most 1; got {share}.")
    energy = values.double().square().cumsum(0)
    if not bool(energy.isfinite().all()):
        return -1
    if float(energy[-1]) == 0:
        return 0
    return int((energy < share * energy[-1] * (1 - 1e-12)).sum()) + 1


def spectrum_steps(net: Network, layers: tuple[str, ...] | None = None) -> Iterator[Spectrum]:
    """The spectra of the network's weight matrices one by one, as they are done; equal shapes are done together."""
    groups: dict[tuple[int, ...], list[Weight]] = {}
    for row in matrices(net):
        if layers is None or row.layer in layers:
            groups.setdefault((*row.matrix.shape,), []).append(row)
    for (rows, columns), members in groups.items():
        some = max(1, _CHUNK // (rows * columns))
        for start in range(0, len(members), some):
            part = members[start : start + some]
            values = gram_values(torch.stack([row.matrix for row in part])).cpu()
            for row, own in zip(part, values, strict=True):
                yield Spectrum(row.name, row.layer, row.kind, tuple(row.tensor.shape), own)


def spectra_so_far(net: Network) -> Iterator[tuple[Spectrum, ...]]:
    """The spectra done so far, in execution order, again and again until all are done: for a page that draws them."""
    order = {row.name: index for index, row in enumerate(matrices(net))}
    done: list[Spectrum] = []
    for spectrum in spectrum_steps(net):
        done.append(spectrum)
        yield tuple(sorted(done, key=lambda row: order[row.name]))


def cost(net: Network) -> float:
    """About how many multiply-accumulates the spectra of all weights take; 1e10 are about a second on one core."""
    sides = [sorted(row.matrix.shape) for row in matrices(net)]
    return float(sum(small**2 * large + 10 * small**3 for small, large in sides))


def read_spectra(net: Network) -> tuple[Spectrum, ...]:
    """The spectra of all weight matrices, in execution order.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> [(s.name, s.rows, s.columns) for s in read_spectra(net)]
    [('0.weight', 4, 27)]
    """
    done = {spectrum.name: spectrum for spectrum in spectrum_steps(net)}
    return tuple(done[row.name] for row in matrices(net))


def singular_values(net: Network, view: str = "flat") -> dict[str, Tensor]:
    """Singular values of every weight matrix, float64, descending: ``{"conv1.weight": [min(rows, columns)]}``.

    ``view="flat"`` reads a convolution as ``[out, in / groups · k · k]``. ``view="positions"`` reads it as k·k
    matrices ``[out, in / groups]`` and gives ``[k·k, min(out, in / groups)]``, positions row by row.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8))
    >>> singular_values(net)["0.weight"].shape, singular_values(net, view="positions")["0.weight"].shape
    (torch.Size([4]), torch.Size([9, 3]))
    """
    if view not in VIEWS:
        raise SpError(f"The view must be 'flat' or 'positions'; got '{view}'.")
    if view == "flat":
        return {spectrum.name: spectrum.values for spectrum in read_spectra(net)}
    return {
        row.name: gram_values(row.tensor.flatten(2).permute(2, 0, 1)).cpu() for row in map(_at_least_3, matrices(net))
    }


def _at_least_3(row: Weight) -> Weight:
    """A linear layer is a convolution with one kernel position."""
    tensor = row.tensor if row.tensor.ndim > 2 else row.tensor[:, :, None]
    return Weight(row.name, row.layer, row.kind, tensor, row.groups, row.runs)


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


def _bidiagonal(side: int, length: int, rng: np.random.Generator) -> np.ndarray:
    matrix = np.diag(np.sqrt(rng.chisquare(np.arange(length, length - side, -1))))
    if side > 1:
        matrix += np.diag(np.sqrt(rng.chisquare(np.arange(side - 1, 0, -1))), -1)
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
