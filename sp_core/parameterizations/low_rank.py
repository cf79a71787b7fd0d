"""Low-rank weights: a convolution written as the product of the small ones of a scheme, trained as such.

The formulas are those of :mod:`sp_core.parameterizations.schemes` (truncated SVD, Jaderberg's two schemes, Tucker) and
of :mod:`sp_core.parameterizations.cp`; the parts are the kernels of the small convolutions, a shared one once.
"""

from __future__ import annotations

import math

from torch import Tensor

from sp_core.errors import SpError
from sp_core.parameterizations import cp
from sp_core.parameterizations.base import Parameterization
from sp_core.parameterizations.schemes import SCHEMES, Stage, compose

NAMES = (*SCHEMES, "cp")


class LowRank(Parameterization):
    """``Ŵ`` = the small convolutions of a scheme, one after the other, at one rank.

    ``svd`` and ``separable`` take the nearest weight of that rank, ``basis`` and ``tucker`` one close to it, ``cp`` a
    local minimum (see their files).

    >>> LowRank((8, 4, 3, 3), "separable", 2).trained  # Jaderberg: K (C + N) d
    72
    """

    def __init__(self, shape: tuple[int, ...], scheme: str, rank: int) -> None:
        self.stages = stages(shape, scheme, rank)
        parts = tuple((stage.shape[0] // stage.copies, *stage.shape[1:]) for stage in self.stages)
        super().__init__(shape, parts)
        self.scheme, self.rank = scheme, rank

    def forward(self, *parts: Tensor) -> Tensor:
        """The small kernels to the weight."""
        kernels = [part.repeat(stage.copies, 1, 1, 1) for part, stage in zip(parts, self.stages, strict=True)]
        return compose(kernels, [stage.groups for stage in self.stages]).view(self.shape)

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The small kernels of the rebuilt weight."""
        found = kernels(weight, self.scheme, self.rank)
        return tuple(kernel[: shape[0]] for kernel, shape in zip(found, self.parts, strict=True))


def _square(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer's weight is that of a 1×1 convolution."""
    return (*shape, 1, 1) if len(shape) == 2 else tuple(shape)


def ranks(shape: tuple[int, ...], scheme: str) -> int:
    """The highest rank, at which nothing is lost.

    >>> ranks((8, 4, 3, 3), "svd"), ranks((8, 4, 3, 3), "basis")
    (8, 9)
    """
    return (cp.ranks if scheme == "cp" else SCHEMES[scheme].ranks)(_square(shape))


def stages(shape: tuple[int, ...], scheme: str, rank: int) -> list[Stage]:
    """The small convolutions: shapes, groups and cost."""
    return (cp.stages if scheme == "cp" else SCHEMES[scheme].stages)(_square(shape), rank)


def kernels(weight: Tensor, scheme: str, rank: int) -> list[Tensor]:
    """Their weights for ``weight`` ``[out, in]`` or ``[out, in, h, w]``, as ``nn.Conv2d`` has them."""
    return (cp.kernels if scheme == "cp" else SCHEMES[scheme].kernels)(weight.view(_square(tuple(weight.shape))), rank)


def chosen_rank(shape: tuple[int, ...], scheme: str, rank: float) -> int:
    """A whole rank as it is; a share in (0, 1) of the highest, at least 1.

    Raises:
        SpError: there is no such rank.

    >>> chosen_rank((8, 4, 3, 3), "svd", 0.5), chosen_rank((8, 4, 3, 3), "svd", 3)
    (4, 3)
    """
    top = ranks(shape, scheme)
    whole = max(1, math.floor(rank * top)) if 0 < rank < 1 else rank
    if whole != int(whole) or not 1 <= whole <= top:
        size = "×".join(map(str, shape))
        raise SpError(
            f"The rank of a {size} weight under '{scheme}' is from 1 to {top}, or a share between 0 and 1; got {rank}."
        )
    return int(whole)


def obstacle(shape: tuple[int, ...], scheme: str) -> str | None:
    """Why the scheme does nothing for a weight of this shape; None when it does.

    >>> obstacle((8, 4, 1, 1), "separable"), obstacle((8, 4), "svd")
    ('it has no k×k kernels', None)
    """
    if len(shape) not in {2, 4}:
        return "it is neither a linear layer nor a two-dimensional convolution"
    if scheme != "svd" and math.prod(shape[2:]) == 1:
        return "it has no k×k kernels"
    return None
