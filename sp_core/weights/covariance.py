"""Which filters of two layers respond together: the inter-layer covariance of Deep Roots.

Ioannou, Robertson, Cipolla and Criminisi, CVPR 2017 (arXiv:1605.06489): ``C = X₁ X₂ᵀ / (N − 1)`` over the pixels of two
feature maps, each channel less its mean, the smaller map enlarged by nearest neighbours. After training with filter
groups C is near block-diagonal: filters learn to work with those of their own group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sp_core.capture import activations
from sp_core.errors import SpError
from sp_core.network import Network


@dataclass(frozen=True, eq=False)
class Covariance:
    """How the channels of two layers vary together on the images seen so far.

    Attributes:
        first, second: the layers.
        matrix: covariances, float64 ``[channels of first, channels of second]``.
        deviations: standard deviation of each channel of both, float64.
        samples: pixels that were seen, of all images.
        seen, total: images so far, and in all.
    """

    first: str
    second: str
    matrix: Tensor
    deviations: tuple[Tensor, Tensor]
    samples: int
    seen: int
    total: int

    @property
    def correlation(self) -> Tensor:
        """The matrix in [-1, 1]; 0 where a channel never changes (a dead filter)."""
        rows, columns = self.deviations
        scale = rows[:, None] * columns[None, :]
        return torch.where(scale > 0, self.matrix / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0.0).clamp(-1, 1)

    def block_share(self, groups: int) -> float:
        """Share of the squared correlation inside ``groups`` equal blocks along the diagonal; 1 / groups by chance.

        NaN when nothing correlates at all.

        Raises:
            SpError: the channels of both layers cannot be divided so.
        """
        rows, columns = self.matrix.shape
        if groups < 1 or rows % groups or columns % groups:
            raise SpError(f"{rows} and {columns} channels cannot both be divided into {groups} groups.")
        energy = self.correlation.square()
        blocks = energy.view(groups, rows // groups, groups, columns // groups).sum((1, 3))
        whole = float(blocks.sum())
        return float(blocks.diagonal().sum()) / whole if whole > 0 else math.nan


def covariance_steps(
    net: Network, first: str, second: str, dataset: Any, count: int = 256, batch: int = 32
) -> Iterator[Covariance]:
    """Covariance of two layers over the first ``count`` images of a data set, after each batch.

    Raises:
        SpError: a layer does not exist or has no map, or there are fewer than two pixels in all.

    >>> from torch import nn
    >>> from sp_core.datasets import Textures
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), name="two", input_size=(3, 32, 32))
    >>> *_, last = covariance_steps(net, "0", "1", Textures(count=4, size=32), count=4)
    >>> last.matrix.shape, last.samples
    (torch.Size([4, 4]), 3600)
    """
    for name in (first, second):
        if not net.layer_with_units(name).is_map:
            raise SpError(f"Layer {name} has no positions, so it has no pixels to compare; choose a convolution.")
    total = min(count, len(dataset))
    if total < 1:
        raise SpError(f"{dataset.name} has no images to compare the layers on; choose another data set.")
    sums: _Sums | None = None
    for start in range(0, total, batch):
        stop = min(start + batch, total)
        images, _ = dataset.batch(start, stop, network=net)
        with torch.no_grad():
            maps = activations(net, images, {first, second})
        rows, columns = _pixels(maps[first], maps[second])
        sums = _Sums(rows.mean(1, keepdim=True), columns.mean(1, keepdim=True)) if sums is None else sums
        sums.add(rows, columns)
        if sums.samples > 1:
            yield sums.answer(first, second, stop, total)
    if sums is None or sums.samples < 2:
        raise SpError("One pixel in all has no covariance; take more images, or layers with larger maps.")


def _pixels(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Maps ``[n, c, h, w]`` as channels by pixels, float64, the smaller enlarged to the size of the larger."""
    size = [max(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    both = (F.interpolate(own.float(), size, mode="nearest") for own in (first, second))
    rows, columns = (own.double().cpu().transpose(0, 1).flatten(1) for own in both)
    return rows, columns


class _Sums:
    """Running sums of pixels less a fixed offset near their mean, so that nothing large is subtracted at the end."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.offsets = rows, columns
        self.samples = 0
        self.product = rows.new_zeros(len(rows), len(columns))
        self.plain = [torch.zeros_like(own[:, 0]) for own in self.offsets]
        self.squares = [torch.zeros_like(own[:, 0]) for own in self.offsets]

    def add(self, rows: Tensor, columns: Tensor) -> None:
        own = [pixels - offset for pixels, offset in zip((rows, columns), self.offsets, strict=True)]
        self.samples += rows.shape[1]
        self.product += own[0] @ own[1].mT
        for place, pixels in enumerate(own):
            self.plain[place] += pixels.sum(1)
            self.squares[place] += pixels.square().sum(1)

    def answer(self, first: str, second: str, seen: int, total: int) -> Covariance:
        count = self.samples
        matrix = (self.product - self.plain[0][:, None] * self.plain[1][None, :] / count) / (count - 1)
        pairs = zip(self.plain, self.squares, strict=True)
        spread = [((squares - plain.square() / count) / (count - 1)).clamp_min(0).sqrt() for plain, squares in pairs]
        return Covariance(first, second, matrix, (spread[0], spread[1]), count, seen, total)
