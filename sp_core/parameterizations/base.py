"""What every parametrisation is: parts that are free, a formula that makes the weight of them, and the way back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Parameterization(nn.Module, ABC):
    """A way to write a weight ``[out, in, …kernel]`` by free numbers, as ``torch.nn.utils.parametrize`` wants it.

    ``forward(*parts)`` is the formula. ``right_inverse(weight)`` gives the parts of the nearest weight that can be
    written so (each class says when it is less than the nearest), hence ``forward(right_inverse(W))`` is a projection.
    It holds no tensors of its own: what can be computed from the shape is, so that a network made on the meta device
    and filled later works.

    Attributes:
        shape: of the weight.
        parts: shapes of the free tensors, in order.
    """

    def __init__(self, shape: tuple[int, ...], parts: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.shape, self.parts = tuple(shape), parts

    @abstractmethod
    def forward(self, *parts: Tensor) -> Tensor:
        """The weight, of shape :attr:`shape`."""

    @abstractmethod
    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The parts of the nearest weight; ``weight`` is float64 and not to be changed."""

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The parts with which the paper starts training, ``weight`` freshly drawn, float64; else as :meth:`split`."""
        return self.split(weight)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The parts of the nearest weight, in the type of ``weight``; they share no memory with it."""
        return self._parts(weight, self.split)

    def start(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The parts with which the paper starts training, in the type of ``weight``."""
        return self._parts(weight, self.begin)

    def _parts(self, weight: Tensor, make: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        like: Any = {"dtype": weight.dtype, "device": weight.device}
        if weight.is_meta:  # shapes only: a decomposition needs numbers
            return tuple(torch.empty(shape, **like) for shape in self.parts)
        with torch.no_grad():
            parts = make(weight.detach().double())
        return tuple(torch.empty(s, **like).copy_(part) for s, part in zip(self.parts, parts, strict=True))

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(shape) for shape in self.parts)

    @property
    def kept(self) -> int:
        """How many numbers the trained weight needs; fewer than :attr:`trained` where training has more freedom."""
        return self.trained

    def extra_repr(self) -> str:
        """The weight's shape, and how many numbers are free."""
        return f"{'×'.join(map(str, self.shape))} from {self.trained:,} free numbers"


def taps(weight: Tensor) -> Tensor:
    """``[n, m, …kernel]`` as matrices ``[…kernel, n, m]``, one for every kernel position.

    >>> taps(torch.zeros(4, 5, 3, 3)).shape, untaps(taps(torch.zeros(4, 5, 3, 3))).shape
    (torch.Size([3, 3, 4, 5]), torch.Size([4, 5, 3, 3]))
    """
    return weight.movedim((0, 1), (-2, -1))


def untaps(matrices: Tensor) -> Tensor:
    """The way back from :func:`taps`."""
    return matrices.movedim((-2, -1), (0, 1))
