"""Symmetric weights: the formulas of Hu, Zagoruyko and Komodakis 2018 (arXiv:1812.11027).

Equations are numbered as in Zagoruyko's lecture "Weight parameterizations in deep neural networks". The functions take
matrices ``[…, n, n]``; the parametrisations apply them to the channel matrix of every kernel position. Triangular,
spatial and N-way forms are in :mod:`sp_core.parameterizations.tied`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.parameterizations.base import Parameterization, taps, untaps
from sp_core.parameterizations.tied import FORMS, places


def average(free: Tensor) -> Tensor:
    """``½ (W + Wᵀ)``: n² free numbers in training, n (n + 1) / 2 to keep."""
    return (free + free.mT) / 2


def triangular(free: Tensor, diagonal: Tensor) -> Tensor:
    """``diag(v) + triu(W, 1) + triu(W, 1)ᵀ``: n (n + 1) / 2 free numbers.

    >>> triangular(torch.tensor([[9.0, 2.0], [9.0, 9.0]]), torch.tensor([1.0, 3.0])).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    above = free.triu(1)
    return torch.diag_embed(diagonal) + above + above.mT


def eigen(vectors: Tensor, values: Tensor) -> Tensor:
    """``V diag(λ) Vᵀ`` with vectors ``[…, n, r]``; the paper takes r = n / 2."""
    return (vectors * values[..., None, :]) @ vectors.mT


def ldl(lower: Tensor, diagonal: Tensor) -> Tensor:
    """``L diag(d) Lᵀ``, L the part of ``lower`` below the diagonal, with ones on it: n (n + 1) / 2 free numbers."""
    unit = lower.tril(-1) + torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return eigen(unit, diagonal)


class Average(Parameterization):
    """``Ŵ = ½ (W + Wᵀ)``, over channels, over each kernel, or one after the other (equation 4).

    All of W is trained; only the symmetric half has to be kept. The parts of the nearest weight are that weight.
    """

    def __init__(self, shape: tuple[int, ...], channels: bool = True, kernel: bool = False) -> None:
        super().__init__(shape, (tuple(shape),))
        self.channels, self.kernel = channels, kernel

    def forward(self, *parts: Tensor) -> Tensor:
        """W to its symmetric part."""
        (weight,) = parts
        if self.kernel:
            weight = average(weight)
        return (weight + weight.transpose(0, 1)) / 2 if self.channels else weight

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The symmetric part."""
        return (self(weight),)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The fresh weight itself."""
        return (weight,)

    @property
    def kept(self) -> int:
        """Of the n² entries of each symmetric matrix n (n + 1) / 2."""
        free = FORMS["triangular"].free
        n, m, *kernel = self.shape
        own = free(n) if self.channels else n * m
        return own * (free(kernel[0]) if self.kernel else torch.Size(kernel).numel())


class SoftL1(Parameterization):
    """W is free in training and pays ``ρ Σ |W − Wᵀ|``; in evaluation the upper triangle is copied to the lower.

    Equation 3 with p = 1: see :func:`asymmetry`, to be added to the loss. The nearest weight is the mean
    with its transpose.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, (tuple(shape),))

    def forward(self, *parts: Tensor) -> Tensor:
        """W; in evaluation its upper triangle, mirrored."""
        (weight,) = parts
        if self.training:
            return weight
        matrix = taps(weight)
        return untaps(triangular(matrix, matrix.diagonal(dim1=-2, dim2=-1)))

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The symmetric part."""
        return ((weight + weight.transpose(0, 1)) / 2,)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The fresh weight itself."""
        return (weight,)

    @property
    def kept(self) -> int:
        """One triangle, n (n + 1) / 2, a kernel position."""
        return FORMS["triangular"].free(self.shape[0]) * torch.Size(self.shape[2:]).numel()


def asymmetry(module: nn.Module) -> Tensor:
    """``Σ_layers Σ_positions ‖vec W − vec Wᵀ‖₁`` of the layers with :class:`SoftL1`; differentiable; 0 without any.

    Multiply by ρ and add to the loss.
    """
    total = torch.zeros(())
    for part in module.modules():
        if isinstance(part, nn.utils.parametrize.ParametrizationList) and isinstance(part[0], SoftL1):
            weight: Any = part.original0
            total = total.to(weight) + (weight - weight.transpose(0, 1)).abs().sum()
    return total


class Eigen(Parameterization):
    """``Ŵ = V diag(λ) Vᵀ`` at each kernel position, V ``[n, r, …kernel]``, λ ``[r, …kernel]`` (equation 4).

    V is free, not kept orthogonal. By default r = ⌈n / 2⌉, as in the paper, so Ŵ has half the full rank. The nearest
    weight has the r eigenvalues of largest magnitude (the released code takes the algebraically largest without the
    very first, and does not train them). The lecture's .173M for WRN-16-1-bottleneck is ``n² / 2 + n`` numbers a
    position; ``r (n + 1)`` are stored.

    >>> Eigen((4, 4, 3, 3)).trained
    90
    """

    def __init__(self, shape: tuple[int, ...], rank: int | None = None) -> None:
        self.rank = -(-shape[0] // 2) if rank is None else rank
        if not 1 <= self.rank <= shape[0]:
            raise SpError(f"An eigen form of {shape[0]} channels has a rank from 1 to {shape[0]}; got {rank}.")
        super().__init__(shape, ((shape[0], self.rank, *shape[2:]), (self.rank, *shape[2:])))

    def forward(self, *parts: Tensor) -> Tensor:
        """V, λ to the weight."""
        vectors, values = parts
        # Rounding makes the product not quite symmetric; the mean with its transpose is, to the last bit.
        return untaps(average(eigen(taps(vectors), values.movedim(0, -1))))

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Eigenvectors and eigenvalues of the symmetric part, the largest magnitudes first."""
        values, vectors = torch.linalg.eigh(average(taps(weight)))
        order = values.abs().argsort(-1, descending=True)[..., : self.rank]
        vectors = vectors.gather(-1, order[..., None, :].expand(*vectors.shape[:-1], self.rank))
        return untaps(vectors), values.gather(-1, order).movedim(-1, 0)


class LDL(Parameterization):
    """``Ŵ = L diag(d) Lᵀ`` at each kernel position, L unit lower triangular (equation 4).

    One part ``[n (n + 1) / 2, …kernel]``: d on the diagonal, L below it. There is no pivoting, so a matrix whose
    leading minors are near zero has no such form with numbers of reasonable size: pivots are kept at least
    :data:`SMALLEST` of the largest entry, and the result is near the symmetric part rather than the nearest.
    Neither lecture nor released code says how training starts. Here L d is the fresh weight below the diagonal and
    ``|d| = √n`` times its root mean square, with the signs of its diagonal: then diagonal, first and second order of
    L are of one size.
    """

    SMALLEST = 0.05

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, ((FORMS["triangular"].free(shape[0]), *shape[2:]),))

    def forward(self, *parts: Tensor) -> Tensor:
        """L and d, packed, to the weight."""
        (free,) = parts
        matrix = taps(free[places("triangular", self.shape[0], free.device)])
        return untaps(average(ldl(matrix, matrix.diagonal(dim1=-2, dim2=-1))))

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The factors of the symmetric part, column by column, small pivots pushed away from zero."""
        rest = average(taps(weight)).clone()
        packed = torch.zeros_like(rest)
        least = self.SMALLEST * rest.abs().amax((-2, -1)).clamp_min(torch.finfo(rest.dtype).tiny)
        for k in range(rest.shape[-1]):
            pivot = rest[..., k, k]
            pivot = torch.where(pivot < 0, pivot.clamp_max(-least), pivot.clamp_min(least))
            column = rest[..., k + 1 :, k] / pivot[..., None]
            packed[..., k, k] = pivot
            packed[..., k + 1 :, k] = column
            rest[..., k + 1 :, k + 1 :] -= pivot[..., None, None] * column[..., :, None] * column[..., None, :]
        return (_packed(packed),)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """L = the fresh weight over d, ``d = ± √n · rms``."""
        matrix = taps(weight)
        size = matrix.square().mean((-2, -1), keepdim=True).sqrt() * matrix.shape[-1] ** 0.5
        size = size.clamp_min(torch.finfo(size.dtype).tiny)
        diagonal = torch.where(matrix.diagonal(dim1=-2, dim2=-1) < 0, -size[..., 0], size[..., 0])
        return (_packed((matrix / diagonal[..., None, :]).tril(-1) + torch.diag_embed(diagonal)),)


def _packed(matrices: Tensor) -> Tensor:
    """The lower triangles of ``[…kernel, n, n]`` as ``[n (n + 1) / 2, …kernel]``, in the order of ``places``."""
    row, column = torch.triu_indices(matrices.shape[-1], matrices.shape[-1], device=matrices.device)
    return matrices[..., column, row].movedim(-1, 0)
