"""Filter groups: each group of filters sees its own share of the channels, so the channel matrix is block-diagonal.

Ioannou, Robertson, Cipolla and Criminisi, "Deep Roots: improving CNN efficiency with hierarchical filter groups",
CVPR 2017, arXiv:1605.06489. Groups in the spatial convolutions *decrease* with depth in a root, increase in a tree,
stay in a column; the first convolution and all 1×1 stay whole, and the 1×1 that follows mixes the groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.parameterizations.base import Parameterization

SHAPES = ("root", "tree", "column")


def schedule(shape: str, groups: int, stages: int) -> tuple[int, ...]:
    """How many groups each stage has, from the first.

    >>> schedule("root", 16, 4), schedule("tree", 4, 2), schedule("column", 8, 2), schedule("root", 2, 4)
    ((16, 8, 4, 2), (4, 8), (8, 8), (2, 1, 1, 1))
    """
    if shape not in SHAPES:
        raise SpError(f"Filter groups form a {', a '.join(SHAPES)}; got '{shape}'.")
    steps = {"root": lambda i: max(1, groups >> i), "tree": lambda i: groups << i, "column": lambda i: groups}
    return tuple(steps[shape](i) for i in range(stages))


class Grouped(Parameterization):
    """``Ŵ`` = block-diagonal in the channels: as ``nn.Conv2d(…, groups=g)``, whose weight is the one part.

    The nearest weight is what lies in the blocks.

    >>> Grouped((8, 4, 3, 3), 2).parts
    ((8, 2, 3, 3),)
    """

    def __init__(self, shape: tuple[int, ...], groups: int) -> None:
        super().__init__(shape, ((shape[0], shape[1] // groups, *shape[2:]),))
        self.groups = groups

    def forward(self, *parts: Tensor) -> Tensor:
        """The blocks, with zeros around them."""
        width = self.shape[1] // self.groups
        kernel = (0, 0) * (len(self.shape) - 2)
        blocks = [
            nn.functional.pad(block, (*kernel, i * width, self.shape[1] - (i + 1) * width))
            for i, block in enumerate(parts[0].chunk(self.groups))
        ]
        return torch.cat(blocks)

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """What lies in the blocks."""
        width = self.shape[1] // self.groups
        rows = weight.chunk(self.groups)
        return (torch.cat([row[:, i * width : (i + 1) * width] for i, row in enumerate(rows)]),)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The blocks, larger by √groups: a filter has so many times fewer inputs."""
        return (self.split(weight)[0] * self.groups**0.5,)


def obstacle(shape: tuple[int, ...], groups: int) -> str | None:
    """Why a weight of this shape cannot have so many groups; None when it can.

    >>> obstacle((192, 160, 3, 3), 3)
    '192 outputs and 160 inputs cannot both be divided into 3 groups'
    """
    if groups < 1 or shape[0] % groups or shape[1] % groups:
        return f"{shape[0]} outputs and {shape[1]} inputs cannot both be divided into {groups} groups"
    return None
