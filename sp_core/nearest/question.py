"""The two questions: which images are nearest to one, and how often neighbours are of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.nearest.features import PIXELS, Features, features_of
from sp_core.nearest.search import Metric, nearest
from sp_core.network import Network

QUERIES = 256  # at once, in agreement


@dataclass(frozen=True)
class Neighbours:
    """The images nearest to one, nearest first.

    Attributes:
        space: ``"pixels"`` or a layer.
        metric: ``"cosine"`` or ``"l2"``.
        images: their numbers in the data set.
        labels: their classes; -1 where unknown.
        distances: ascending.
    """

    space: str
    metric: str
    images: tuple[int, ...]
    labels: tuple[int, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """How well neighbours tell the class, each image left out in turn.

    Attributes:
        space: ``"pixels"`` or a layer.
        k: neighbours that vote.
        accuracy: share of the images whose neighbours' most frequent class (of equally frequent ones, that of the
            nearest neighbour) is their own, 0 to 1.
        share: mean share of neighbours of the image's own class, 0 to 1.
        chance: ``share`` if neighbours were drawn at random.
        images: how many were left out in turn.
    """

    space: str
    k: int
    accuracy: float
    share: float
    chance: float
    images: int


def neighbours(
    features: Features | str | Path,
    query: int | Tensor,
    space: str = PIXELS,
    *,
    k: int = 9,
    metric: Metric = "cosine",
    net: Network | None = None,
    approximate: bool = False,
) -> Neighbours:
    """The ``k`` images nearest to ``query`` in the pixels or in the features of a layer; exact unless told otherwise.

    Args:
        features: what :func:`build_features` has written, or its folder.
        query: the number of an image of the data set, which is then left out of the answer; or an image
            ``[1, c, h, w]`` in [0, 1], for which ``net`` is needed.
        space: one of ``features.spaces``: ``"pixels"``, or a layer.
        k: how many.
        metric: ``"cosine"`` (1 - cosine, 0 to 2) or ``"l2"`` (Euclidean; of pixels in levels of 255).
        net: the network of the features.
        approximate: search through faiss, which can miss some; worth it for hundreds of thousands of images. The first
            such question to a :class:`Features` makes its cells.

    Raises:
        SpError: the space or the image is not there, ``net`` is missing or another one, or faiss is not installed.
    """
    held = features if isinstance(features, Features) else Features(features)
    base = held.vectors(space)
    if isinstance(query, Tensor):
        if net is None or not held.fits(net):
            raise SpError("A picture needs `net`, the network whose features these are, fed in the same way.")
        image = query if query.ndim == 4 else query[None]
        vector = features_of(net, image, [] if space == PIXELS else [space])[space].float()
        out = torch.tensor([-1])
    else:
        out = torch.tensor([held.row(query)])
        vector = base[out]
    if approximate:
        distances, rows = held.cells(space, metric).search(vector, k, out)
        distances, rows = distances[:, rows[0] >= 0], rows[:, rows[0] >= 0]
    else:
        distances, rows = nearest(base, vector, k, metric, out, held.norms(space))
    return Neighbours(
        space,
        metric,
        tuple(held.images[rows[0]].tolist()),
        tuple(held.labels[rows[0]].tolist()),
        tuple(distances[0].tolist()),
    )


def agreement(
    features: Features, space: str, k: int = 9, metric: Metric = "cosine", most: int | None = None
) -> Agreement:
    """Leave-one-out k-nearest-neighbour accuracy in one space (Cover & Hart 1967), over the images of known class.

    ``most`` bounds how many are left out in turn, evenly spaced; neighbours always come from all.

    Raises:
        SpError: fewer than two images have a class.
    """
    known = features.labels >= 0
    labels, base = features.labels[known], features.vectors(space)[known]
    count = len(labels)
    if count < 2:
        raise SpError("Fewer than 2 of these images have a class, so neighbours cannot agree in it.")
    right, same = 0, 0.0
    asked = torch.linspace(0, count - 1, min(most or count, count)).round().long()
    for rows in asked.split(QUERIES):
        _, found = nearest(base, base[rows], k, metric, rows)
        votes = labels[found]
        right += int((_majority(votes) == labels[rows]).sum())
        same += float((votes == labels[rows, None]).double().mean(1).sum())
    sizes = torch.bincount(labels).double()
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))
    return Agreement(space, min(k, count - 1), right / len(asked), same / len(asked), chance, len(asked))


def _majority(votes: Tensor) -> Tensor:
    """The most frequent value of each row ``[q, k]``; of equally frequent ones the one that comes first."""
    counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
    first = (counts == counts.amax(1, keepdim=True)).int().argmax(1)
    return votes.gather(1, first[:, None])[:, 0]
