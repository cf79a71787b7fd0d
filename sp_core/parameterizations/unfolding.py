"""How a Dirac convolution and its BatchNorm become one weight, one step at a time, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.parameterizations.dirac import Dirac, obstacle


@dataclass(frozen=True, eq=False)
class Step:
    """One step of folding: a weight, and what is still done beside it.

    The layer's output is ``scale · (weight * x) + identity · x + bias``, then BatchNorm where ``norm`` is set.

    Attributes:
        formula: what the weight is now.
        weight: float64 ``[out, in, …kernel]``.
        bias: float64 ``[out]``, or None while there is none.
        scale: what each output is still multiplied with, float64 ``[out]``, or None.
        identity: how much of its own channel each output still gets, float64 ``[out]``, or None.
        norm: whether BatchNorm still follows.
    """

    formula: str
    weight: Tensor
    bias: Tensor | None = None
    scale: Tensor | None = None
    identity: Tensor | None = None
    norm: bool = False


def dirac_parts(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``a``, ``b`` and ``W / ‖W‖`` of any weight ``[out, in, …odd kernel]``: ``diag(a) I + diag(b) W / ‖W‖``.

    ``a`` is what each filter hands on of its own channel, ``b`` the length of the rest; float64 ``[out]``.

    Raises:
        SpError: an even kernel has no middle.

    >>> a, b, _ = dirac_parts(torch.eye(2)[:, :, None, None])
    >>> a.tolist(), b.tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """
    if why := obstacle(tuple(weight.shape)):
        raise SpError(f"This weight has no Dirac form: {why}.")
    rest, a, b = Dirac(tuple(weight.shape)).right_inverse(weight.detach().double())
    return a, b, nn.functional.normalize(rest.flatten(1)).view_as(rest)


def own_parts(conv: nn.Module) -> tuple[Tensor, Tensor, Tensor, bool]:
    """``W``, ``a`` and ``b`` of a convolution, and whether they were trained as such (a DiracNet's).

    Of any other weight ``a`` is what the delta reads, and ``W`` the rest, whose norms are ``b``; float64.
    """
    layer: Any = conv
    if nn.utils.parametrize.is_parametrized(conv, "weight") and isinstance(layer.parametrizations.weight[0], Dirac):
        parts = layer.parametrizations.weight
        trained: tuple[Tensor, ...] = (parts.original0, parts.original1, parts.original2)
        rest, a, b = (part.detach().double() for part in trained)
        return rest, a, b, True
    weight = layer.weight.detach().double()
    if why := obstacle(tuple(weight.shape)):
        raise SpError(f"This weight has no Dirac form: {why}.")
    rest, a, b = Dirac(tuple(weight.shape)).right_inverse(weight)
    return rest, a, b, False


def folding_steps(conv: nn.Module, norm: nn.Module | None = None) -> tuple[Step, ...]:
    """From W to the weight and bias of the folded layer: every step computes the same, the last is what is run.

    Args:
        conv: any convolution with an odd kernel and one group; a Dirac-parametrised one has its own a and b.
        norm: the BatchNorm that reads it, in evaluation, or None.

    Raises:
        SpError: an even kernel has no middle.

    >>> for step in folding_steps(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)):
    ...     print(step.formula)
    W
    W / ‖W‖
    diag(b) W / ‖W‖
    diag(a) I + diag(b) W / ‖W‖
    diag(γ / σ) (diag(a) I + diag(b) W / ‖W‖)
    """
    own: Any = conv
    rest, a, b, _ = own_parts(conv)
    bias = own.bias.detach().double() if getattr(own, "bias", None) is not None else None
    whole = own.weight.detach().double()
    along = (-1, *[1] * (whole.ndim - 1))
    lengths = rest.flatten(1).norm(dim=1).clamp_min(1e-12)  # as in torch's normalize: a filter of zeros stays one
    unit = rest / lengths.view(along)
    after = norm is not None
    steps = [
        Step("W", rest, bias, b / lengths, a, after),
        Step("W / ‖W‖", unit, bias, b, a, after),
        Step("diag(b) W / ‖W‖", b.view(along) * unit, bias, None, a, after),
        Step("diag(a) I + diag(b) W / ‖W‖", whole, bias, norm=after),
    ]
    if norm is not None:
        given: Any = norm
        one = torch.ones_like(a)
        scale = (given.weight.detach().double() if given.weight is not None else one) / (
            given.running_var.double() + given.eps
        ).sqrt()
        shift = given.bias.detach().double() if given.bias is not None else 0 * one
        moved = shift + ((bias if bias is not None else 0 * one) - given.running_mean.double()) * scale
        steps.append(Step("diag(γ / σ) (diag(a) I + diag(b) W / ‖W‖)", scale.view(along) * whole, moved))
    return tuple(steps)
