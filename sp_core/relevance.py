"""Layer-wise relevance propagation by the epsilon rule, and the proof that it applies.

Where every layer is linear or acts on single values with f(0) = 0, the rule with epsilon to 0 is the input times a
gradient in which each f'(z) is replaced by f(z)/z (Ancona et al. 2018, proposition 1); for rectifiers that is the
gradient itself. Then the shares of all pixels and all biases add up to the logit, exactly. That is the proof used here:
a gate, or a normalisation by the image's own statistics, breaks the sum.

captum's rules act on modules only: additions, and poolings written as functions, are missed. Of 67 torchvision networks
its LRP raises on 29, is not finite on 10, is off by more than the largest value on 16 and by up to 3 % on 3, and is the
same as this on 9 (``benchmarks/attributions.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sp_core.deep_lift import in_float64
from sp_core.errors import SpError
from sp_core.network import Network

# Act on single values and are 0 at 0, but are not straight on both sides of it as rectifiers are.
_BENT = (nn.Hardtanh, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Tanh, nn.Softsign)
# Gates, and normalisations by statistics of the image itself.
_WITHOUT_RULE: tuple[type[nn.Module], ...] = (
    *(nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax, nn.LogSoftmax, nn.LayerNorm, nn.GroupNorm),
    *(nn.modules.instancenorm._InstanceNorm, nn.LocalResponseNorm, nn.MultiheadAttention),
)
_ROUNDING = 1e-6  # of the sum of all shares' magnitudes; in float64 it is 1e-10 at most


def relevance(net: Network, image: Tensor, channel: int) -> tuple[Tensor, float, float]:
    """The relevance ``[1, c, h, w]`` (float64) of one image for a class, the logit, and the biases' share of it.

    Raises:
        SpError: a layer has no rule, or the shares do not add up to the logit.
    """
    check_rules(net)
    wide = in_float64(net)
    clone = wide.clone()
    for part in clone.modules():
        if isinstance(part, _BENT):
            part.register_forward_hook(_secant)
    biases = _biases(clone)
    inputs = net.normalise(image.double()).detach().clone().requires_grad_()
    value = clone(inputs)[0, channel]
    slopes = torch.autograd.grad(value, [inputs, *(bias for bias, _ in biases)], allow_unused=True)
    found = torch.zeros_like(inputs) if slopes[0] is None else slopes[0] * inputs.detach()
    held = [slope * added for slope, (_, added) in zip(slopes[1:], biases, strict=True) if slope is not None]
    logit, share = float(value.detach()), sum(float(part.sum()) for part in held)
    size = float(found.abs().sum()) + sum(float(part.abs().sum()) for part in held)
    total = float(found.sum()) + share
    if not abs(total - logit) <= _ROUNDING * size:
        raise SpError(
            f"LRP does not apply to {net.name}: the shares of pixels and biases add up to {total:.4g} where the logit "
            f"is {logit:.4g}, so there are operations that it has no rule for, such as products of two maps. "
            "Choose another method."
        )
    return found.detach(), logit, share


def without_rule(net: Network) -> tuple[str, ...]:
    """The kinds of layers of ``net`` for which LRP has no rule, by name; nothing is run."""
    return tuple(sorted({type(part).__name__ for part in net.module.modules() if isinstance(part, _WITHOUT_RULE)}))


def check_rules(net: Network) -> None:
    """Raise SpError naming the layers for which LRP has no rule; nothing is run."""
    if unknown := without_rule(net):
        raise SpError(
            f"LRP does not apply to {net.name}: it has no rule for gates and for normalisations by the image's own "
            f"statistics, here {', '.join(unknown)}. Choose another method."
        )


def _secant(_part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """The same values, with f(z)/z as their derivative; 0 where z is, which passes nothing on."""
    z = inputs[0]
    return z * torch.where(z == 0, 0.0, output / z).detach()


def _biases(clone: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What the layers add: a parameter that is added as it is or by way of it, and the values that are added."""
    found: list[tuple[Tensor, Tensor]] = []
    for part in clone.modules():
        bias = getattr(part, "bias", None)
        if not isinstance(bias, nn.Parameter):
            continue
        part.bias = nn.Parameter(bias.detach())  # the network's own wants no gradient
        added = bias.detach()
        mean, variance = getattr(part, "running_mean", None), getattr(part, "running_var", None)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and mean is not None and variance is not None:
            added = added - part.weight.detach() * mean / (variance + part.eps).sqrt()
        found.append((part.bias, added))
    return found
