"""Filter groups in a trained layer: what imposed ones keep of its energy, and whether groups can be found in it.

The energy of a weight is the matrix of its squares, summed over the kernel: ``[out, in]``. With g groups only blocks on
its diagonal are kept (Ioannou, Robertson, Cipolla and Criminisi, Deep Roots, CVPR 2017, arXiv:1605.06489). The order of
channels means nothing, so groups may hide in it: a search puts outputs and inputs in the order that has most energy in
the blocks. It finds something in any matrix. So it is also given matrices without groups: the same sums of rows and
columns, what is left of each entry shuffled. Only what exceeds those is a group.

CondenseNet (Huang, Liu, van der Maaten and Weinberger, CVPR 2018, arXiv:1711.09224) lets each group of filters choose
its own inputs, and several may choose the same: ``condensed``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights.matrices import find

DRAWS = 8  # matrices without groups that the search is given as well
MOST = 16  # groups: the search goes over all pairs of them
_ORDERS = 30  # random orders, for the spread of the imposed share
_STARTS = 3  # random ones, beside the order as it is and the spectral one
_SWEEPS = 40


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups in a matrix of energies ``[out, in]``.

    Attributes:
        groups: how many.
        imposed: share of the energy in the blocks, channels in their own order; NaN where all energy is zero.
        chance: ``1 / groups``, the mean over all orders; spread: two standard deviations over random orders.
        rows, columns: the order that was found, int64 ``[out]`` and ``[in]``; group by group.
        learned: share of the energy in its blocks.
        condensed: share that is kept where each group of outputs chooses ``in / groups`` inputs for itself.
        without: pairs of (learned, condensed) that the same search finds in matrices without groups, so far.
    """

    groups: int
    imposed: float
    chance: float
    spread: float
    rows: Tensor
    columns: Tensor
    learned: float
    condensed: float
    without: tuple[tuple[float, float], ...] = ()

    @property
    def found(self) -> bool:
        """Whether the search found more than in every matrix without groups."""
        return bool(self.without) and self.learned > max(learned for learned, _ in self.without)


def energies(net: Network, layer: str) -> Tensor:
    """Squares of a weight, summed over its kernel: float64 ``[out, in / groups]``.

    >>> from torch import nn
    >>> energies(Network(nn.Sequential(nn.Conv2d(3, 4, 5)), name="one", input_size=(3, 8, 8)), "0").shape
    torch.Size([4, 3])
    """
    weight = find(net, layer).tensor.detach().cpu().double()
    return weight.square().flatten(2).sum(2) if weight.ndim > 2 else weight.square()


def share(energy: Tensor, groups: int, rows: Tensor | None = None, columns: Tensor | None = None) -> float:
    """Share of ``energy`` in ``groups`` equal blocks along the diagonal, in an order of rows and columns.

    >>> share(torch.tensor([[3.0, 1.0], [1.0, 3.0]]), 2)
    0.75
    """
    ordered = energy if rows is None else energy[rows]
    ordered = ordered if columns is None else ordered[:, columns]
    out, inputs = ordered.shape
    blocks = ordered.reshape(groups, out // groups, groups, inputs // groups).sum((1, 3))
    return float(blocks.diagonal().sum() / blocks.sum())


def grouping_steps(energy: Tensor, groups: int, draws: int = DRAWS) -> Iterator[Grouping]:
    """The groups of a matrix of energies, then the same with one more matrix without groups at each step.

    Random numbers are drawn from a generator of fixed seed, so the answer is always the same.

    Raises:
        SpError: rows and columns cannot be divided so, there are too many groups, or the matrix is zero or not finite.

    >>> planted = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4))[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    >>> *_, last = grouping_steps(planted, 2, draws=4)
    >>> last.imposed, last.learned, last.found
    (0.5, 1.0, True)
    """
    out, inputs = energy.shape
    if not 2 <= groups <= MOST or out % groups or inputs % groups:
        raise SpError(
            f"{out} outputs and {inputs} inputs are divided into 2 to {MOST} equal groups; got {groups}. "
            "Choose a number that divides both."
        )
    energy = energy.detach().cpu().double()
    if not 0 < float(energy.sum()) < float("inf"):
        raise SpError(
            "The weights are all zero or not finite, so there are no groups to look for; choose another layer."
        )
    draw = torch.Generator().manual_seed(0)
    orders = [(torch.randperm(out, generator=draw), torch.randperm(inputs, generator=draw)) for _ in range(_ORDERS)]
    spread = 2 * float(torch.tensor([share(energy, groups, *order) for order in orders]).std())
    rows, columns = arranged(energy, groups)
    learned, condensed = share(energy, groups, rows, columns), _condensed(energy, groups, rows)
    answer = Grouping(groups, share(energy, groups), 1 / groups, spread, rows, columns, learned, condensed)
    yield answer
    marginal = energy.sum(1, keepdim=True) * energy.sum(0) / energy.sum()
    rest = torch.where(marginal > 0, energy / marginal.clamp_min(torch.finfo(energy.dtype).tiny), 0.0).flatten()
    for _ in range(draws):
        other = marginal * rest[torch.randperm(len(rest), generator=draw)].view_as(energy)
        order = arranged(other, groups)
        both = share(other, groups, *order), _condensed(other, groups, order[0])
        answer = replace(answer, without=(*answer.without, both))
        yield answer


def arranged(energy: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """An order of rows and columns with as much energy in the blocks as a search finds: a local maximum.

    Rows and columns are assigned in turn: for every pair of groups, their members are divided anew in the best way.
    Started from the order as it is, from the leading singular vectors, and from random orders; the best is kept.

    >>> rows, columns = arranged(torch.eye(4)[[0, 2, 1, 3]], 2)
    >>> share(torch.eye(4)[[0, 2, 1, 3]], 2, rows, columns)
    1.0
    """
    out, inputs = energy.shape
    draw = torch.Generator().manual_seed(1)
    starts = [(torch.arange(out), torch.arange(inputs)), _spectral(energy)]
    starts += [(torch.randperm(out, generator=draw), torch.randperm(inputs, generator=draw)) for _ in range(_STARTS)]
    found = [_improved(energy, groups, *start) for start in starts]
    return max(found, key=lambda order: share(energy, groups, *order))


def _spectral(energy: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns by the second pair of singular vectors, each entry divided by the roots of its two sums."""
    scaled = energy.double() / (energy.sum(1, keepdim=True) * energy.sum(0)).double().sqrt().clamp_min(1e-300)
    left, _, right = torch.linalg.svd(scaled, full_matrices=False)
    which = min(1, left.shape[1] - 1)
    return left[:, which].argsort(), right[which].argsort()


def _improved(energy: Tensor, groups: int, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    last = share(energy, groups, rows, columns)
    for _ in range(_SWEEPS):
        rows = _divided(energy[:, columns].unflatten(1, (groups, -1)).sum(2), rows.view(groups, -1))
        columns = _divided(energy[rows].unflatten(0, (groups, -1)).sum(1).mT, columns.view(groups, -1))
        now = share(energy, groups, rows, columns)
        if now <= last + 1e-12:
            break
        last = now
    return rows, columns


def _divided(affinity: Tensor, members: Tensor) -> Tensor:
    """Members of the groups ``[g, size]`` so that their affinities ``[n, g]`` are large: pairs of groups in turn."""
    groups, size = members.shape
    members = members.clone()
    for first in range(groups):
        for second in range(first + 1, groups):
            both = members[[first, second]].flatten()
            order = (affinity[both, first] - affinity[both, second]).argsort(descending=True, stable=True)
            members[first], members[second] = both[order[:size]], both[order[size:]]
    return members.flatten()


def _condensed(energy: Tensor, groups: int, rows: Tensor) -> float:
    each = energy[rows].unflatten(0, (groups, -1)).sum(1)  # [groups, in]
    return float(each.topk(energy.shape[1] // groups).values.sum() / energy.sum())
