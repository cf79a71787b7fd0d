"""Approximate search through faiss (optional): only the cells nearest to a query are looked into.

An inverted file (Sivic & Zisserman 2003; Johnson, Douze & Jégou 2017, "Billion-scale similarity search with GPUs"):
k-means cuts the vectors into cells, and a query is compared with the vectors of a few of them. The distances of the
candidates are computed again in float64, so that what is found has its true distance; a neighbour in a cell that was
not looked into is missed.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.nearest.search import SPARE, Metric, exact_distances, nearest_first

CELLS = 1024  # at most; a cell has at least 40 vectors, or k-means warns
ROUNDS = 6  # of k-means
SEED = 1234


class Approximate:
    """Cells over vectors float32 ``[n, d]``, made once and searched often.

    ``probes`` cells are looked into for each query; all of them make the search exact.

    Raises:
        SpError: faiss is not installed.
    """

    def __init__(self, base: Tensor, metric: Metric = "cosine", probes: int = 16) -> None:
        faiss = _faiss()
        self.base, self.metric, self.probes = base, metric, probes
        rows = self._direction(base).numpy()
        self.cells = max(1, min(CELLS, len(base) // 40, round(4 * math.sqrt(len(base)))))
        self._quantiser = faiss.IndexFlatL2(base.shape[1])  # faiss keeps no reference of its own
        self._index = faiss.IndexIVFFlat(self._quantiser, base.shape[1], self.cells)
        self._index.cp.niter, self._index.cp.seed = ROUNDS, SEED
        self._index.train(rows[:: max(1, len(rows) // (40 * self.cells))])
        self._index.add(rows)

    def search(self, queries: Tensor, k: int, leave_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :func:`sp_core.nearest.nearest`, but a neighbour may be missed; rows -1 where the cells held too few."""
        out = torch.full((len(queries),), -1) if leave_out is None else leave_out
        self._index.nprobe = min(self.probes, self.cells)
        _, rough = self._index.search(self._direction(queries).numpy(), min(k + 1 + SPARE, len(self.base)))
        rows = torch.from_numpy(rough)
        distances = torch.stack(
            [
                exact_distances(self.base[row.clamp_min(0)], query, self.metric)
                for row, query in zip(rows, queries, strict=True)
            ]
        )
        gone = (rows < 0) | (rows == out[:, None])
        found, at = nearest_first(distances.masked_fill(gone, torch.inf), rows.masked_fill(gone, -1), k)
        return found, at.masked_fill(found.isinf(), -1)

    def _direction(self, vectors: Tensor) -> Tensor:
        """For cosine the nearest unit vectors are those with the least angle."""
        return torch.nn.functional.normalize(vectors, dim=1) if self.metric == "cosine" else vectors.contiguous()


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise SpError(
            "Approximate search needs faiss, which is not installed: `pip install faiss-cpu`; exact search does not."
        ) from error
