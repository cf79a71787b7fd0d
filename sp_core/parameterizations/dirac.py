"""Dirac weights: the identity plus a learned rest, so that a plain network trains like a residual one.

Zagoruyko and Komodakis 2017, "DiracNets: training very deep neural networks without skip-connections",
arXiv:1706.00388. The second version is that of the lecture; the first is that of the code of June 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sp_core.parameterizations.base import Parameterization


def delta(shape: tuple[int, ...]) -> Tensor:
    """The Dirac delta ``[out, in, …k]``, float64, the kernel's middle rounded down as ``torch.nn.init.dirac_`` does.

    (The lecture's formula has the 1 at every ``l ≤ K``; its figure shows it in the middle, as here.)

    >>> delta((2, 2, 3))[:, :, 1].tolist(), int(delta((2, 3, 3, 3)).sum())
    ([[1.0, 0.0], [0.0, 1.0]], 2)
    """
    return centred(torch.eye(*shape[:2], dtype=torch.float64), shape[2:])


def centred(matrix: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """The convolution ``[out, in, …kernel]`` that is ``matrix [out, in]`` in the kernel's middle and 0 around it."""
    margins = [edge for size in reversed(kernel) for edge in (size // 2, size - 1 - size // 2)]
    return nn.functional.pad(matrix.view(*matrix.shape, *[1] * len(kernel)), margins)


def diagonal(weight: Tensor) -> Tensor:
    """The entries that the delta reads, as a view ``[min(out, in)]``.

    >>> diagonal(torch.arange(12.0).view(2, 2, 3)).tolist()
    [1.0, 10.0]
    """
    for size in weight.shape[2:]:
        weight = weight.select(2, size // 2)
    return weight.diagonal()


class Dirac(Parameterization):
    """``Ŵ = diag(a) I + diag(b) W / ‖W‖``, each filter of W divided by its own Euclidean norm (version 2).

    Parts: W, a, b; a and b ``[out]``, without weight decay in the paper. Training starts at a = 1, b = 0.1 and the
    fresh W. Every weight can be written so: a is what the delta reads, the rest has its norm in b.
    """

    A, B = 1.0, 0.1

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, (tuple(shape), (shape[0],), (shape[0],)))

    def forward(self, *parts: Tensor) -> Tensor:
        """W, a, b to the weight."""
        weight, a, b = parts
        unit = nn.functional.normalize(weight.flatten(1))
        identity = torch.eye(*self.shape[:2], dtype=weight.dtype, device=weight.device)
        return centred(a[:, None] * identity, self.shape[2:]) + (b[:, None] * unit).view(self.shape)

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The identity in it, and the rest."""
        a = weight.new_zeros(self.shape[0])
        read = diagonal(weight)
        a[: len(read)] = read
        rest = weight.clone()
        diagonal(rest).zero_()
        return rest, a, rest.flatten(1).norm(dim=1)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The paper's start."""
        ones = weight.new_ones(self.shape[0])
        return weight, self.A * ones, self.B * ones


class DiracFirst(Parameterization):
    """``Ŵ = α I + β W`` with two numbers a layer (version 1); the identity is repeated where out ≠ in.

    Parts: W, α ``[1]``, β ``[1]``. Training starts at α = 5, β = 1e-5. It follows :class:`NCReLU`, which doubles the
    channels: with as many outputs as channels before it, α = 1 and β = 0 make the identity. The released networks
    also normalise W and start at β = 1e-3; its layers, and this one, do not. Every weight can be written so.
    """

    A, B = 5.0, 1e-5

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, (tuple(shape), (1,), (1,)))

    def forward(self, *parts: Tensor) -> Tensor:
        """W, α, β to the weight."""
        weight, a, b = parts
        return a * _tiled(self.shape, weight) + b * weight

    def split(self, weight: Tensor) -> tuple[Tensor, ...]:
        """α = ⟨W, I⟩ / ⟨I, I⟩, β = 1 and the rest."""
        whole = _tiled(self.shape, weight)
        a = (weight * whole).sum() / whole.sum()
        return weight - a * whole, a.view(1), weight.new_ones(1)

    def begin(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The released code's start."""
        return weight, weight.new_full((1,), self.A), weight.new_full((1,), self.B)


class NCReLU(nn.Module):
    """``[n, c, …]`` to ``[max(x, 0), min(x, 0)]`` of ``[n, 2c, …]``: what version 1 puts before each convolution.

    >>> NCReLU()(torch.tensor([[2.0, -3.0]])).tolist()
    [[2.0, 0.0, 0.0, -3.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """The positive and the negative part, one after the other."""
        return torch.cat([x.clamp(min=0), x.clamp(max=0)], dim=1)


def _tiled(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The square delta, repeated along the longer of the two channel axes."""
    out, inputs, *kernel = shape
    side = min(out, inputs)
    eye = torch.eye(side, dtype=like.dtype, device=like.device)
    return centred(eye.repeat(out // side, inputs // side), tuple(kernel))


def obstacle(shape: tuple[int, ...], tiled: bool = False) -> str | None:
    """Why a weight of this shape has no Dirac form; None when it has one.

    >>> obstacle((4, 4, 2, 2)), obstacle((4, 6, 3, 3)), obstacle((4, 6, 3, 3), tiled=True)
    ('an even kernel 2×2 has no middle', None, '4 outputs and 6 inputs: neither is a multiple of the other')
    """
    out, inputs, *kernel = shape
    if any(size % 2 == 0 for size in kernel):
        return f"an even kernel {'×'.join(map(str, kernel))} has no middle"
    if tiled and max(out, inputs) % min(out, inputs):
        return f"{out} outputs and {inputs} inputs: neither is a multiple of the other"
    return None
