"""How much of the identity is in a convolution: its share along the Dirac delta.

DiracNets (Zagoruyko and Komodakis 2017, arXiv:1706.00388) write a weight as ``diag(a) I + diag(b) W``, where the delta
``I`` hands every channel on unchanged: 1 at ``[d, d, middle]`` for ``d < min(out, in)``, 0 elsewhere. Here the question
is asked of any trained weight: how long is its projection on that?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sp_core.network import Network
from sp_core.parameterizations.dirac import delta, diagonal
from sp_core.weights.matrices import Weight, weights

__all__ = ["Dirac", "delta", "identity_share", "identity_shares"]


@dataclass(frozen=True)
class Dirac:
    """The identity in one weight.

    Attributes:
        layer: its layer.
        coefficient: ``a = ⟨W, I⟩ / ⟨I, I⟩``, the mean of the weights that the delta reads; signed.
        share: ``⟨W, I⟩² / (‖W‖² ‖I‖²)`` in [0, 1]: energy along the delta, one number ``a`` for all channels.
        expected: the share of a random Gaussian weight, ``1 / numel``.
        diagonal: energy of ``diag(a) I`` with an ``a`` of its own for each output channel, as in DiracNets, over
            ``‖W‖²``; in [0, 1].
        diagonal_expected: that of a random weight, ``min(out, in) / numel``.
        diagonal_high: what one random weight in about 40 exceeds: mean plus two standard deviations.
        reason: why there is no number (then all are NaN), or None.
    """

    layer: str
    coefficient: float
    share: float
    expected: float
    diagonal: float
    diagonal_expected: float
    diagonal_high: float
    reason: str | None = None


def identity_share(row: Weight) -> Dirac:
    """The identity in one weight; see :class:`Dirac`."""
    shape = tuple(row.tensor.shape)
    if row.groups != 1:
        return _missing(row.layer, f"{row.groups} groups")
    if any(size % 2 == 0 for size in shape[2:]):
        return _missing(row.layer, f"an even kernel {'×'.join(map(str, shape[2:]))} has no middle")
    weight = row.tensor.detach().to("cpu", torch.float64)
    energy = float(weight.square().sum())
    if not 0 < energy < math.inf:
        return _missing(row.layer, "the weights are all zero" if energy == 0 else "the weights are not finite")
    read = diagonal(weight)
    count, total = len(read), weight.numel()
    mean = count / total
    deviation = math.sqrt(mean * (1 - mean) / (total / 2 + 1))  # ‖part‖²/‖W‖² of a Gaussian is Beta distributed
    return Dirac(
        layer=row.layer,
        coefficient=float(read.mean()),
        share=float(read.sum() ** 2 / (energy * count)),
        expected=1 / total,
        diagonal=float(read.square().sum() / energy),
        diagonal_expected=mean,
        diagonal_high=mean + 2 * deviation,
    )


def _missing(layer: str, reason: str) -> Dirac:
    nan = math.nan
    return Dirac(layer, nan, nan, nan, nan, nan, nan, reason)


def identity_shares(net: Network) -> tuple[Dirac, ...]:
    """The identity in every convolution, in execution order (a linear layer changes what a channel means).

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), name="one", input_size=(3, 8, 8))
    >>> len(identity_shares(net))
    1
    """
    return tuple(identity_share(row) for row in weights(net) if row.tensor.ndim > 2)
