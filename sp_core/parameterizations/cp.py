"""Canonical polyadic decomposition of a convolution: a sum of r products of four vectors.

``W[n, c, i, j] = Σ_r a[n, r] b[c, r] u[i, r] v[j, r]`` is four convolutions: 1×1 to r channels, k×1 and 1×k on each
by itself, 1×1 to all. Lebedev and others 2015, "Speeding-up convolutional neural networks using fine-tuned
CP-decomposition", arXiv:1412.6553. Found by alternating least squares from the leading singular vectors of each
axis: a local minimum that depends on nothing random.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sp_core.parameterizations.schemes import Stage

SWEEPS = 100  # at most; a sweep that gains less than TOLERANCE of the energy is the last
TOLERANCE = 1e-7


def factors(weight: Tensor, rank: int, sweeps: int = SWEEPS) -> list[Tensor]:
    """The four factors ``[n, r], [c, r], [h, r], [w, r]`` of a float64 weight ``[n, c, h, w]``.

    The columns of one term have equal norms, and the terms with the largest come first.

    >>> a, b, u, v = factors(torch.ones(4, 3, 3, 3, dtype=torch.float64), 1)
    >>> torch.allclose(torch.einsum("nr,cr,ir,jr->ncij", a, b, u, v), torch.ones(4, 3, 3, 3, dtype=torch.float64))
    True
    """
    found = [_leading(weight.movedim(axis, 0).flatten(1), rank) for axis in range(4)]
    energy = float(weight.square().sum())
    last = math.inf
    for _ in range(sweeps):
        for axis in range(4):
            others = [factor for place, factor in enumerate(found) if place != axis]
            gram = (others[0].mT @ others[0]) * (others[1].mT @ others[1]) * (others[2].mT @ others[2])
            # A whisker of ridge: terms may grow against each other without bound (the best rank-r need not exist).
            gram = gram + 1e-12 * gram.diagonal().mean().clamp_min(1e-300) * torch.eye(
                rank, dtype=gram.dtype, device=gram.device
            )
            mixed = torch.einsum("xijk,ir,jr,kr->xr", weight.movedim(axis, 0), *others)
            found[axis] = torch.linalg.solve(gram, mixed.mT).mT
            if axis < 3:
                found[axis] = found[axis] / found[axis].norm(dim=0).clamp_min(1e-300)
        left = float((weight - torch.einsum("nr,cr,ir,jr->ncij", *found)).square().sum())
        if last - left <= TOLERANCE * energy:
            break
        last = left
    size = torch.stack([factor.norm(dim=0) for factor in found]).clamp_min(1e-300)  # [4, r]
    each = size.log().mean(0).exp()
    order = each.argsort(descending=True)
    return [(factor / own * each)[:, order] for factor, own in zip(found, size, strict=True)]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """``rank`` unit columns to start from: the leading left singular vectors, then fixed random ones."""
    _, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    extra = max(0, rank - len(vectors))
    noise = torch.randn(len(vectors), extra, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise / noise.norm(dim=0)).to(matrix)
    return torch.cat([vectors.flip(1)[:, :rank], noise], dim=1)


def ranks(shape: tuple[int, ...]) -> int:
    """A rank at which every weight can be written exactly: all sizes but the largest, multiplied.

    >>> ranks((8, 4, 3, 3))
    36
    """
    return math.prod(shape) // max(shape)


def kernels(weight: Tensor, rank: int) -> list[Tensor]:
    """The weights of the four convolutions, in order."""
    outs, ins, down, across = factors(weight, rank)
    return [
        ins.mT[:, :, None, None],
        down.mT[:, None, :, None],
        across.mT[:, None, None, :],
        outs[:, :, None, None],
    ]


def stages(shape: tuple[int, ...], rank: int) -> list[Stage]:
    """Their shapes: r (n + c + h + w) numbers.

    >>> sum(stage.parameters for stage in stages((8, 4, 3, 3), 2))
    36
    """
    n, c, h, w = shape
    return [
        Stage("point", (rank, c, 1, 1)),
        Stage("column", (rank, 1, h, 1), groups=rank),
        Stage("row", (rank, 1, 1, w), groups=rank),
        Stage("point", (n, rank, 1, 1)),
    ]
