"""What training is fed: batches by step number, and held-out images to measure with.

A batch follows from the recipe and the step alone, so a resumed run needs no state of its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sp_core.datasets.cifar10 import Cifar10
from sp_core.datasets.textures import Textures, render
from sp_core.errors import SpError
from sp_core.training.recipes import Recipe

_RENDER_AT_ONCE = 2_048  # textures drawn ahead: few large draws cost less than many small ones
_MARGIN = 4  # pixels that a crop may move, as in He et al. 2016, section 4.2


class Feed(Protocol):
    """Training batches by step number, and images that training never sees."""

    classes: tuple[str, ...]
    about: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images of one update, uint8 ``[batch, 3, h, w]``, and labels int64 ``[batch]``, on the device."""

    def held_out(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``count`` held-out images: batches of float32 ``[n, 3, h, w]`` in [0, 1] and labels ``[n]``."""


class TextureFeed:
    """Procedural textures of the recipe's data seed, drawn ahead in blocks; another seed's are held out."""

    classes: tuple[str, ...] = Textures.classes
    about = "procedural textures (sp_core.datasets.textures); held-out images come from another seed"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __init__(self, recipe: Recipe, size: int, device: torch.device) -> None:
        self.recipe, self.size, self.device = recipe, size, device
        self.block = min(max(1, _RENDER_AT_ONCE // recipe.batch), recipe.steps)  # steps in a block
        self.first = -1
        self.images, self.labels = torch.empty(0), torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Textures ``step · batch`` … ``(step + 1) · batch - 1``."""
        batch = self.recipe.batch
        first = step - step % self.block
        if first != self.first:
            data = Textures(
                self.block * batch, seed=self.recipe.data_seed, size=self.size, device=self.device, offset=first * batch
            )
            indices = torch.arange(first * batch, (first + self.block) * batch)
            self.images = render(indices, seed=self.recipe.data_seed, size=self.size, device=self.device)
            self.labels = data.parameters(torch.arange(len(data)))["label"].to(self.device)
            self.first = first
        rows = slice((step - first) * batch, (step - first + 1) * batch)
        return self.images[rows], self.labels[rows]

    def held_out(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Textures of ``held_out_seed``."""
        yield from textures(self.recipe.held_out_seed, count, self.size, self.device)


def textures(
    seed: int, count: int, size: int, device: torch.device, offset: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` textures of ``seed`` in batches of 256, float32 in [0, 1], with their labels."""
    data = Textures(count, seed=seed, size=size, device=device, offset=offset)
    for start in range(0, count, 256):
        yield data.batch(start, min(start + 256, count))


class CifarFeed:
    """CIFAR-10 with random crops of a reflected margin and flips, all held and cut on the device; the test part is
    held out.

    Each pass shows every image once, in an order of its own (the last images of a pass that do not fill a batch begin
    the next). Mean and standard deviation are those of the training pixels.
    """

    about = "CIFAR-10 (Krizhevsky 2009), random crops of 4 reflected pixels and flips; the test part is held out"
    classes: tuple[str, ...] = Cifar10.classes
    mean: tuple[float, ...] = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    std: tuple[float, ...] = (63.0 / 255, 62.1 / 255, 66.7 / 255)

    def __init__(self, recipe: Recipe, path: str, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.train, self.test = Cifar10(path, "train"), Cifar10(path, "test")
        if recipe.batch > len(self.train):
            raise SpError(
                f"batch must be at most the {len(self.train)} training images, got {recipe.batch}; "
                "give a smaller batch or more images"
            )
        images, labels = self.train.pixels()
        margin = (_MARGIN,) * 4
        # float16 holds every byte exactly, and reflection is not written for bytes
        self.images = torch.cat([F.pad(part.half(), margin, "reflect").byte() for part in images.split(5_000)])
        self.images, self.labels = self.images.to(device), labels.to(device)
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of ``step``."""
        batch, count = self.recipe.batch, len(self.labels)
        places = torch.arange(step * batch, (step + 1) * batch)
        rows = torch.cat(
            [
                self._order(int(epoch))[places[places // count == epoch] % count]
                for epoch in torch.unique(places // count)
            ]
        )
        generator = torch.Generator().manual_seed(self.recipe.data_seed * 1_000_003 + step)
        down, right, flip = (torch.randint(high, (batch,), generator=generator) for high in (9, 9, 2))
        ys = down[:, None] + torch.arange(32)
        across = torch.arange(32)
        xs = right[:, None] + torch.where(flip[:, None] == 1, across.flip(0), across)
        rows, ys, xs = (part.to(self.device) for part in (rows, ys, xs))
        cut = self.images[
            rows[:, None, None, None],
            torch.arange(3, device=self.device)[:, None, None],
            ys[:, None, :, None],
            xs[:, None, None, :],
        ]
        return cut, self.labels[rows]

    def _order(self, epoch: int) -> Tensor:
        """The order of the images in pass ``epoch``, int64 ``[n]``."""
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(self.recipe.data_seed * 7_919 + epoch)
            self.epoch, self.order = epoch, torch.randperm(len(self.labels), generator=generator)
        return self.order

    def held_out(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``count`` test images."""
        images, labels = self.test.pixels()
        for start in range(0, min(count, len(labels)), 500):
            rows = slice(start, min(start + 500, count))
            yield images[rows].to(self.device).float() / 255, labels[rows].to(self.device)


def feed(recipe: Recipe, size: int, device: torch.device, data: str) -> Feed:
    """The feed that ``recipe.dataset`` names; ``data`` is the folder of CIFAR-10, and nothing for textures."""
    if recipe.dataset == "textures":
        return TextureFeed(recipe, size, device)
    if recipe.dataset == "cifar10":
        return CifarFeed(recipe, data, device)
    raise SpError(
        f"dataset must be textures or cifar10, got '{recipe.dataset}'; "
        "leave it out for textures, or say cifar10 and give its folder with --data"
    )
