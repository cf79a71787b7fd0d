"""Four ways to rebuild a convolution at low rank, as pure functions of its weight.

They write a convolution ``W [out, in, k, k]`` as a sequence of cheaper ones, in closed form by orthogonal
projections, so that the error at every rank is known at once from the energies that are left out:

========= ============================================================= ============================================
scheme    sequence                                                      source
========= ============================================================= ============================================
svd       k×k to r channels, 1×1 to all                                 SVD of ``[out, in·k·k]``
separable k×1 to r channels, 1×k to all                                 Jaderberg 2014, scheme 2: SVD ``[in·k, k·out]``
basis     r separable kernels on each channel (k×1, 1×k), 1×1 to all    Jaderberg 2014, scheme 1
tucker    1×1 to r·in/out channels, k×k to r, 1×1 to all                Kim 2016, Tucker-2 by HOSVD
========= ============================================================= ============================================

Jaderberg, Vedaldi and Zisserman 2014, "Speeding up convolutional neural networks with low rank expansions"; Kim and
others 2016, "Compression of deep convolutional neural networks". Ioannou and others (ICLR 2016) train such layers from
scratch instead. ``svd`` and ``separable`` are optimal at their rank (Eckart and Young); ``basis`` and ``tucker`` are
close to it, and could be improved by iterating.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.errors import SpError

_LARGEST = 6144  # side of the matrix whose eigenvectors are wanted; beyond, that takes minutes


@dataclass(frozen=True)
class Stage:
    """One of the layers that replace the original.

    Attributes:
        how: ``"point"`` (1×1), ``"full"`` (k×k), ``"column"`` (k×1) or ``"row"`` (1×k).
        shape: of its weight, as ``nn.Conv2d`` has it.
        groups: 1, or in how many groups its channels are divided.
        copies: how often its first kernels are repeated to make all of them.
    """

    how: str
    shape: tuple[int, ...]
    groups: int = 1
    copies: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates at one of its output positions."""
        return math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Free numbers in it."""
        return math.prod(self.shape) // self.copies


@dataclass(frozen=True)
class Scheme:
    """A way to rebuild a layer. The functions take the weight ``[n, c, h, w]`` or its shape, and a rank.

    Attributes:
        name: its key in :data:`SCHEMES`.
        ranks: the highest rank, at which nothing is lost.
        left: energy left out at ranks 1, 2, …: ``[ranks]``.
        kernels: the weights of the stages, as ``nn.Conv2d`` wants them, in order.
        stages: their shapes and what they cost.
    """

    name: str
    ranks: Callable[[tuple[int, ...]], int]
    left: Callable[[Tensor], Tensor]
    kernels: Callable[[Tensor, int], list[Tensor]]
    stages: Callable[[tuple[int, ...], int], list[Stage]]


def _basis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (columns) of ``matrix`` and its squared singular values, the largest first."""
    if matrix.shape[0] > _LARGEST:
        raise SpError(
            f"This scheme needs the eigenvectors of a {matrix.shape[0]}×{matrix.shape[0]} matrix; at most {_LARGEST} "
            "are computed. Choose a smaller layer, or look at its spectrum."
        )
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return vectors.flip(1), values.flip(0).clamp_min(0)


def _tails(energies: Tensor) -> Tensor:
    """What is left out when the first 1, 2, … energies are kept. Summed from the small end, so that 0 is 0."""
    return torch.cat([energies.flip(0).cumsum(0).flip(0)[1:], energies.new_zeros(1)])


# svd: W = U (Uᵀ W), or (W V) Vᵀ when that is the smaller side


def _svd_left(weight: Tensor) -> Tensor:
    flat = weight.flatten(1)
    return _tails(_basis(flat if flat.shape[0] <= flat.shape[1] else flat.mT)[1])


def _svd_kernels(weight: Tensor, rank: int) -> list[Tensor]:
    flat = weight.flatten(1)  # [n, c·h·w]
    if flat.shape[0] <= flat.shape[1]:
        point = _basis(flat)[0][:, :rank]
        first = point.mT @ flat
    else:
        first = _basis(flat.mT)[0][:, :rank].mT
        point = flat @ first.mT
    return [first.view(rank, *weight.shape[1:]), point[:, :, None, None]]


def _svd_stages(shape: tuple[int, ...], rank: int) -> list[Stage]:
    n, c, h, w = shape
    return [Stage("full", (rank, c, h, w)), Stage("point", (n, rank, 1, 1))]


# separable: the matrix [c·h, w·n] = V Hᵀ; columns of V are the k×1 filters, those of H the 1×k ones


def _separable_matrix(weight: Tensor) -> Tensor:
    return weight.permute(1, 2, 3, 0).flatten(2).flatten(0, 1)  # [c·h, w·n]


def _separable_left(weight: Tensor) -> Tensor:
    matrix = _separable_matrix(weight)
    return _tails(_basis(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT)[1])


def _separable_kernels(weight: Tensor, rank: int) -> list[Tensor]:
    n, c, h, w = weight.shape
    matrix = _separable_matrix(weight)
    if matrix.shape[0] <= matrix.shape[1]:
        vertical = _basis(matrix)[0][:, :rank]
        horizontal = vertical.mT @ matrix
    else:
        horizontal = _basis(matrix.mT)[0][:, :rank].mT
        vertical = matrix @ horizontal.mT
    column = vertical.mT.reshape(rank, c, h, 1)
    row = horizontal.view(rank, w, n).permute(2, 0, 1)[:, :, None]  # [n, rank, 1, w]
    return [column, row]


def _separable_stages(shape: tuple[int, ...], rank: int) -> list[Stage]:
    n, c, h, w = shape
    return [Stage("column", (rank, c, h, 1)), Stage("row", (n, rank, 1, w))]


# basis: kernels v hᵀ from the singular vectors of rows and of columns, the pairs with most energy first


def _basis_parts(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Column vectors [h, h], row vectors [w, w], coefficients [n, c, h, w], pair order and pair energies."""
    columns, _ = _basis(weight.permute(2, 0, 1, 3).flatten(1))
    rows, _ = _basis(weight.permute(3, 0, 1, 2).flatten(1))
    core = columns.mT @ weight @ rows
    energies = core.square().sum((0, 1)).flatten()
    order = energies.argsort(descending=True)
    return columns, rows, core, order, energies[order]


def _basis_left(weight: Tensor) -> Tensor:
    return _tails(_basis_parts(weight)[4])


def _basis_kernels(weight: Tensor, rank: int) -> list[Tensor]:
    n, c, _, w = weight.shape
    columns, rows, core, order, _ = _basis_parts(weight)
    i, j = order[:rank] // w, order[:rank] % w
    column = columns[:, i].mT.repeat(c, 1)[:, None, :, None]  # [c·rank, 1, h, 1]: the same for every channel
    row = rows[:, j].mT.repeat(c, 1)[:, None, None, :]
    return [column, row, core[:, :, i, j].reshape(n, c * rank, 1, 1)]


def _basis_stages(shape: tuple[int, ...], rank: int) -> list[Stage]:
    n, c, h, w = shape
    return [
        Stage("column", (c * rank, 1, h, 1), groups=c, copies=c),
        Stage("row", (c * rank, 1, 1, w), groups=c * rank, copies=c),
        Stage("point", (n, c * rank, 1, 1)),
    ]


# tucker: W = core ×₁ U_out ×₂ U_in


def _inner(shape: tuple[int, ...], rank: int) -> int:
    """Channels after the first 1×1: the same fraction of the input channels as ``rank`` is of the output ones."""
    return max(1, min(shape[1], math.ceil(rank * shape[1] / shape[0])))


def _tucker_parts(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    outs, _ = _basis(weight.flatten(1))
    ins, _ = _basis(weight.transpose(0, 1).flatten(1))
    return outs, ins, torch.einsum("nchw,nr,cs->rshw", weight, outs, ins)


def _tucker_left(weight: Tensor) -> Tensor:
    energy = _tucker_parts(weight)[2].square().sum((2, 3))  # [n, c]
    kept = energy.cumsum(0).cumsum(1)
    inner = torch.tensor([_inner(tuple(weight.shape), rank) for rank in range(1, len(energy) + 1)])
    left = (energy.sum() - kept[torch.arange(len(energy)), inner - 1]).clamp_min(0)
    left[-1] = 0.0  # the difference of two equal sums
    return left


def _tucker_kernels(weight: Tensor, rank: int) -> list[Tensor]:
    outs, ins, core = _tucker_parts(weight)
    inner = _inner(tuple(weight.shape), rank)
    return [ins[:, :inner].mT[:, :, None, None], core[:rank, :inner], outs[:, :rank, None, None]]


def _tucker_stages(shape: tuple[int, ...], rank: int) -> list[Stage]:
    n, c, h, w = shape
    inner = _inner(shape, rank)
    return [
        Stage("point", (inner, c, 1, 1)),
        Stage("full", (rank, inner, h, w)),
        Stage("point", (n, rank, 1, 1)),
    ]


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("svd", lambda s: min(s[0], math.prod(s[1:])), _svd_left, _svd_kernels, _svd_stages),
        Scheme(
            "separable", lambda s: min(s[1] * s[2], s[3] * s[0]), _separable_left, _separable_kernels, _separable_stages
        ),
        Scheme("basis", lambda s: s[2] * s[3], _basis_left, _basis_kernels, _basis_stages),
        Scheme("tucker", lambda s: s[0], _tucker_left, _tucker_kernels, _tucker_stages),
    )
}


def compose(kernels: list[Tensor], groups: list[int] | None = None) -> Tensor:
    """The one weight ``[n, c, h, w]`` that a sequence of convolutions without biases amounts to.

    At most one of two that follow each other may be larger than 1 in an axis, as in every scheme here.

    >>> compose([torch.ones(2, 3, 3, 1), torch.ones(4, 2, 1, 3)]).shape
    torch.Size([4, 3, 3, 3])
    """
    groups = groups or [1] * len(kernels)
    whole, divided = kernels[0], groups[0]
    for kernel, own in zip(kernels[1:], groups[1:], strict=True):
        if own > 1:  # every channel by itself
            whole = (whole[:, :, :, None, :, None] * kernel[:, :, None, :, None, :]).flatten(4, 5).flatten(2, 3)
            continue
        split = whole.view(divided, -1, *whole.shape[1:])  # [g, r, c / g, h, w]
        over = kernel.reshape(kernel.shape[0], *split.shape[:2], *kernel.shape[2:])
        whole = torch.einsum("ngrij,grchw->ngchiwj", over, split).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        divided = 1
    return whole
