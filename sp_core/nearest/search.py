"""Exact search: candidates by one matrix product in float32, their distances again in float64, and a proof for each.

Rounding moves every float32 score by at most a known bound. Where the worst candidate kept is further from the k-th
neighbour than that, no vector left out can be nearer; where it is not, the query is searched again in float64.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sp_core.errors import SpError

Metric = Literal["cosine", "l2"]
METRICS = ("cosine", "l2")
CHUNK = 65_536  # vectors at once: bounds the memory that float64 takes
SPARE = 32  # candidates beyond k


def nearest(
    base: Tensor,
    queries: Tensor,
    k: int,
    metric: Metric = "cosine",
    leave_out: Tensor | None = None,
    norms: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` rows of ``base`` ``[n, d]`` nearest to each of ``queries`` ``[q, d]``.

    Args:
        base: float32; is not copied.
        queries: float32.
        k: how many; all, where there are fewer.
        metric: ``"cosine"``: 1 - cosine of the angle, 0 to 2 (of a zero vector 1 to everything); ``"l2"``: Euclidean.
        leave_out: int64 ``[q]``: for each query one row of ``base`` that is never found (itself), -1 for none.
        norms: float32 ``[n]``: the lengths of the rows of ``base``, where they are known: ``base`` is then read once.

    Returns:
        Distances float64 ``[q, k]``, ascending, and rows int64 ``[q, k]``; equal distances by row.

    >>> nearest(torch.eye(3), torch.tensor([[1.0, 0.9, 0.0]]), 2)[1]
    tensor([[0, 1]])
    """
    if metric not in METRICS:
        raise SpError(f"`metric` must be cosine or l2; got '{metric}'.")
    if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1]:
        raise SpError(f"Vectors must have one length; got {list(base.shape)} and {list(queries.shape)}.")
    if k < 1:
        raise SpError(f"`k` must be at least 1; got {k}.")
    out = torch.full((len(queries),), -1) if leave_out is None else leave_out
    k = min(k, len(base) - int((out >= 0).any()))
    if k < 1:
        return torch.zeros(len(queries), 0, dtype=torch.float64), torch.zeros(len(queries), 0, dtype=torch.int64)
    norms = torch.linalg.vector_norm(base, dim=1) if norms is None else norms
    scores, slack = _scores(base, norms, queries, metric)
    asked = (out >= 0).nonzero()[:, 0]
    scores[asked, out[asked]] = torch.inf
    wide = min(k + SPARE, len(base))
    rough, rows = scores.topk(wide, largest=False)
    exact = torch.stack([exact_distances(base[row], query, metric) for row, query in zip(rows, queries, strict=True)])
    exact[rough.isinf()] = torch.inf
    distances, found = nearest_first(exact, rows, k)
    if wide < len(base):
        # In the score's own unit: squared distances for l2.
        last = distances[:, -1] if metric == "cosine" else distances[:, -1].square()
        for i in (last + slack >= rough[:, -1].double() - slack).nonzero()[:, 0].tolist():
            distances[i], found[i] = _slow(base, queries[i], k, metric, int(out[i]))
    return distances, found


def _scores(base: Tensor, norms: Tensor, queries: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Distances (l2: squared) in float32 ``[q, n]``, and how far any of a query's may be from the truth ``[q]``."""
    lengths = torch.linalg.vector_norm(queries, dim=1)
    dots = queries @ base.T
    # The dot product of d terms is off by at most d·2⁻²⁴ times the product of the norms (Higham 2002, section 3.1).
    off = (base.shape[1] + 16) * 2.0**-24
    if metric == "cosine":
        product = lengths[:, None] * norms[None]
        cosines = torch.where(product > 0, dots / product.clamp_min(torch.finfo(torch.float32).tiny), 0)
        return 1 - cosines, torch.full((len(queries),), 3 * off, dtype=torch.float64)
    top = float(norms.max())
    slack = 3 * off * (lengths.double() + top).square()
    return lengths[:, None].square() + norms[None].square() - 2 * dots, slack


def exact_distances(rows: Tensor, query: Tensor, metric: Metric) -> Tensor:
    """Distances float64 ``[m]`` of rows ``[m, d]`` to a query ``[d]``."""
    many, one = rows.double(), query.double()
    if metric == "l2":
        return torch.linalg.vector_norm(many - one, dim=1)
    product = torch.linalg.vector_norm(many, dim=1) * torch.linalg.vector_norm(one)
    cosines = torch.where(product > 0, (many * one).sum(1) / product.clamp_min(torch.finfo(torch.float64).tiny), 0)
    return 1 - cosines.clamp(-1, 1)


def nearest_first(distances: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` least distances along the last axis and their rows; equal distances by row."""
    by_row = rows.argsort(dim=-1)
    distances, rows = distances.gather(-1, by_row), rows.gather(-1, by_row)
    order = distances.argsort(dim=-1, stable=True)[..., :k]
    return distances.gather(-1, order), rows.gather(-1, order)


def _slow(base: Tensor, query: Tensor, k: int, metric: Metric, out: int) -> tuple[Tensor, Tensor]:
    """All distances in float64, a chunk at a time."""
    parts = [exact_distances(base[i : i + CHUNK], query, metric) for i in range(0, len(base), CHUNK)]
    distances = torch.cat(parts)
    if out >= 0:
        distances[out] = torch.inf
    return nearest_first(distances, torch.arange(len(base)), k)
