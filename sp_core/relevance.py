"""Layer-wise relevance propagation through captum, on a private copy, with the proof that it applies.

Captum's LRP is silent where it is wrong: of 68 torchvision networks it raises on 30, comes out infinite on 10 and adds
up to 100 or more times the logit on 12. The proof used here: with all biases set to zero, nothing absorbs relevance, so
what arrives at the pixels must add up to the logit (Bach et al. 2015, eq. 2).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network

# Leaves that only move values: backward they need no rule.
_MOVES = (nn.Flatten, nn.Unflatten, nn.Identity, nn.ZeroPad2d, nn.Sequential, nn.PixelShuffle)


def relevance(net: Network, image: Tensor, channel: int, *, biases: bool = True) -> tuple[Tensor, float]:
    """The relevance ``[1, c, h, w]`` (float64) of one image for the class ``channel``, and the class's logit.

    Raises:
        SpError: captum has no rule for one of the layers, or cannot run on the network.
    """
    from captum.attr import LRP

    clone = _copy(net, biases)
    inputs = net.normalise(image.double()).detach().clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's remark on its hooks; the copy is nobody else's
        try:
            found, gap = LRP(clone).attribute(inputs, target=channel, return_convergence_delta=True)
        except Exception as error:  # captum raises whatever the layer's backward raises
            reason = " ".join(str(error).split())[:150].rstrip(".")
            raise SpError(f"LRP does not apply to {net.name}: {reason}. Choose another method.") from error
    found = found.detach()
    return found, float(found.sum() + gap.detach().sum())


def check_conservation(net: Network, image: Tensor, channel: int) -> None:
    """Raise SpError unless the relevance of the network without biases adds up to its logit within 5 %."""
    found, logit = relevance(net, image, channel, biases=False)
    total = float(found.sum())
    if not abs(total - logit) <= 0.05 * abs(logit):
        raise SpError(
            f"LRP does not apply to {net.name}: relevance is not conserved. Without biases it adds up to {total:.3g} "
            f"where the logit is {logit:.3g}, so there are operations that captum has no rule for, such as additions. "
            "Choose another method."
        )


def without_rule(net: Network) -> tuple[str, ...]:
    """The kinds of layers of ``net`` for which captum has no rule, by name; nothing is run."""
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS

    known: tuple[Any, ...] = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)
    leaves = [part for part in net.module.modules() if next(part.children(), None) is None]
    return tuple(sorted({type(x).__name__ for x in leaves if type(x) not in known and not isinstance(x, _MOVES)}))


def check_rules(net: Network) -> None:
    """Raise SpError naming the layers for which captum has no rule; nothing is run."""
    if unknown := without_rule(net):
        raise SpError(
            f"LRP does not apply to {net.name}: captum has no rule for {', '.join(unknown)}. Choose another method."
        )


def _copy(net: Network, biases: bool) -> nn.Module:
    """A float64 copy that shares no memory, for captum writes to weights."""
    check_rules(net)
    clone: nn.Module = copy.deepcopy(net.clone()).double().eval()
    for part in list(clone.modules()):
        if next(part.children(), None) is None and isinstance(part, _MOVES):
            part.add_module("unused", nn.Dropout().eval())  # with a child it is no leaf, and captum passes it by
        if not biases and isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            with torch.no_grad():
                part.bias.zero_()
    return clone
