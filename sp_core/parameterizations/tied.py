"""Weights whose entries share numbers: symmetric in the channels, in each kernel, and the N-way forms.

Every form here is a map of places: entry ``(i, j)`` of an n × n matrix reads free number ``place(i, j)``. For a
convolution the matrix is either that of the channels ``[out, in]`` at each kernel position, or the k × k kernel of each
pair of channels, or both. The places are worked out from arithmetic on i and j, so nothing is stored.

Hu, Zagoruyko and Komodakis 2018, "Exploring weight symmetry in deep neural networks", arXiv:1812.11027; the figure
"N-way parameterizations" of Zagoruyko's lecture shows the N-way forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.parameterizations.base import Parameterization


@dataclass(frozen=True)
class Form:
    """Which entries of an n × n matrix share a number.

    Attributes:
        place: rows ``[n, 1]``, columns ``[1, n]`` and n to the number of the free entry that each reads.
        free: n to how many free entries there are.
    """

    place: Callable[[Tensor, Tensor, int], Tensor]
    free: Callable[[int], int]


def _triangle(i: Tensor, j: Tensor, n: int) -> Tensor:
    """Numbers the places on and above the diagonal, row by row; one below it is its mirror image."""
    low, high = torch.minimum(i, j), torch.maximum(i, j)
    return low * n - low * (low - 1) // 2 + high - low


def _folded(i: Tensor, n: int) -> Tensor:
    return torch.minimum(i, n - 1 - i)


def _both_diagonals(i: Tensor, j: Tensor, n: int) -> Tensor:
    low, high = torch.minimum(i, j), torch.maximum(i, j)
    beyond = low + high > n - 1  # below the other diagonal: its mirror image is (n - 1 - high, n - 1 - low)
    low, high = torch.where(beyond, n - 1 - high, low), torch.where(beyond, n - 1 - low, high)
    return low * (n + 1 - low) + high - low  # rows of n, n - 2, n - 4 … places


def _half(n: int) -> int:
    return (n + 1) // 2


FORMS = {
    "triangular": Form(_triangle, lambda n: n * (n + 1) // 2),
    "4-way-chunking": Form(lambda i, j, n: i % (n // 4) * n + j, lambda n: n // 4 * n),
    "4-way-blocking": Form(lambda i, j, n: _folded(i, n) * _half(n) + _folded(j, n), lambda n: _half(n) ** 2),
    "4-way-triangulizing": Form(_both_diagonals, lambda n: _half(n) * (n + 1 - _half(n))),
    "8-way-triangulizing": Form(
        lambda i, j, n: _triangle(_folded(i, n), _folded(j, n), _half(n)), lambda n: _half(n) * (_half(n) + 1) // 2
    ),
}


def places(form: str, n: int, device: torch.device | str = "cpu") -> Tensor:
    """The free number that each entry reads, int64 ``[n, n]``.

    >>> places("triangular", 3).tolist()
    [[0, 1, 2], [1, 3, 4], [2, 4, 5]]
    >>> places("8-way-triangulizing", 4).tolist()
    [[0, 1, 1, 0], [1, 2, 2, 1], [1, 2, 2, 1], [0, 1, 1, 0]]
    """
    along = torch.arange(n, device=device)
    return FORMS[form].place(along[:, None], along[None, :], n).expand(n, n)


class Tied(Parameterization):
    """``Ŵ[i, j] = v[place(i, j)]``: in the channels, in the k × k kernels, or in both.

    One part: ``[free, …kernel]``, ``[out, in, free]`` or ``[free, free]``. The nearest weight has the mean of the
    entries that share a number (an orthogonal projection); training starts from the first of them in reading order,
    as the released code does, which keeps the variance of a fresh weight.

    >>> Tied((4, 4, 3, 3), channels="triangular").trained
    90
    """

    def __init__(self, shape: tuple[int, ...], channels: str | None = None, kernel: str | None = None) -> None:
        own = (FORMS[channels].free(shape[0]),) if channels else shape[:2]
        inner = (FORMS[kernel].free(shape[2]),) if kernel else shape[2:]
        super().__init__(shape, ((*own, *inner),))
        self.channels, self.kernel = channels, kernel

    def forward(self, *parts: Tensor) -> Tensor:
        """``v`` to the weight."""
        (weight,) = parts
        if self.channels:
            weight = weight[places(self.channels, self.shape[0], weight.device)]
        if self.kernel:
            weight = weight[..., places(self.kernel, self.shape[2], weight.device)]
        return weight

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Means of the entries that share a number."""
        return (self._reduced(weight, _means),)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The first of the entries that share a number."""
        return (self._reduced(weight, _firsts),)

    def _reduced(self, weight: Tensor, reduce: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
        if self.channels:
            at = places(self.channels, self.shape[0], weight.device).flatten()
            weight = reduce(weight.flatten(0, 1), at, FORMS[self.channels].free(self.shape[0]))
        if self.kernel:
            at = places(self.kernel, self.shape[2], weight.device).flatten()
            flat = weight.flatten(-2).movedim(-1, 0)
            weight = reduce(flat, at, FORMS[self.kernel].free(self.shape[2])).movedim(0, -1)
        return weight


def _means(rows: Tensor, at: Tensor, count: int) -> Tensor:
    """Mean of the rows that go to the same place: ``[m, …]`` to ``[count, …]``."""
    sums = rows.new_zeros(count, *rows.shape[1:]).index_add_(0, at, rows)
    return sums / torch.bincount(at, minlength=count).view(-1, *[1] * (rows.ndim - 1))


def _firsts(rows: Tensor, at: Tensor, count: int) -> Tensor:
    """The first row that goes to each place."""
    order = torch.arange(len(at), device=at.device)
    first = torch.full((count,), len(at), device=at.device).scatter_reduce(0, at, order, "amin")
    return rows[first]


def obstacle(shape: tuple[int, ...], channels: str | None = None, kernel: str | None = None) -> str | None:
    """Why a weight of this shape cannot be tied so; None when it can.

    >>> obstacle((4, 6, 3, 3), "triangular"), obstacle((4, 6, 3, 3), kernel="triangular")
    ('4×6 channels are not square', None)
    """
    if channels and shape[0] != shape[1]:
        return f"{shape[0]}×{shape[1]} channels are not square"
    if channels == "4-way-chunking" and shape[0] % 4:
        return f"{shape[0]} channels cannot be cut into four strips"
    if kernel and (len(shape) != 4 or shape[2] != shape[3] or math.prod(shape[2:]) == 1):
        return "it has no square k×k kernels"
    return None
