"""Folding: a network with free parts becomes a plain one with dense weights, and BatchNorm goes into them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sp_core.parameterizations.factored import put
from sp_core.trace import input_dtype, private_copy

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose parametrised weights are plain ones of the same values; equal outputs in evaluation.

    Any ``torch.nn.utils.parametrize`` parametrisation is folded, also torch's own. ``module`` stays as it is, and the
    copy shares no memory with it. (``remove_parametrizations`` on a copy would take the weight from the original as
    well: the two share their class.)

    >>> from sp_core.parameterizations import apply
    >>> plain = fold(apply(nn.Sequential(nn.Conv2d(4, 4, 3)), "triangular"))
    >>> type(plain[0]).__name__, list(plain.state_dict())
    ('Conv2d', ['0.weight', '0.bias'])
    """
    plain = copy.deepcopy(module)
    for part in list(plain.modules()):
        if not parametrize.is_parametrized(part):
            continue
        lists: Any = part.parametrizations
        lists.eval()  # what holds at test time: a soft symmetry becomes a hard one
        with torch.no_grad():
            dense = {name: getattr(part, name).detach().clone() for name in lists}
        trained = {name: any(own.requires_grad for own in lists[name].parameters()) for name in lists}
        del part._modules["parametrizations"]
        part.__class__ = type(part).__bases__[0]
        rest = dict(part._parameters)
        part._parameters.clear()  # so that the weight comes before the bias again
        for name, tensor in dense.items():
            part.register_parameter(name, nn.Parameter(tensor.contiguous(), requires_grad=trained[name]))
        part._parameters.update(rest)
    return plain


def fold_norms(module: nn.Module, input_size: tuple[int, ...]) -> nn.Module:
    """:func:`fold`, and every BatchNorm that reads nothing but one convolution goes into its weight and bias.

    ``W' = W γ / √(σ² + ε)``, ``b' = β + (b − μ) γ / √(σ² + ε)``; the BatchNorm becomes an ``nn.Identity``. The copy is
    in evaluation mode. Which BatchNorm follows which convolution is seen in a forward pass of one random input of
    ``input_size`` (c, h, w); a pair whose folding changes the output, because something else reads the convolution as
    well, is left as it was (found by halves, so that a network without such pairs runs three times in all).

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    >>> [type(part).__name__ for part in fold_norms(net, (3, 8, 8))]
    ['Conv2d', 'Identity', 'ReLU']
    """
    plain = fold(module).eval()
    device = next((own.device for own in plain.parameters()), torch.device("cpu"))
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(2, *input_size, generator=noise).to(device, input_dtype(plain))
    _fold_all(plain, pairs(plain, images), images, _outputs(plain, images))
    return plain


def _fold_all(plain: nn.Module, found: list[tuple[str, str]], images: Tensor, wanted: list[Tensor]) -> None:
    """Fold the pairs, in place; if that changes the output, each half by itself, down to the guilty one."""
    before = {norm: (_fused(plain, conv, norm), plain.get_submodule(norm)) for conv, norm in found}
    for _, norm in found:
        put(plain, norm, nn.Identity())
    if not found or _close(wanted, _outputs(plain, images)):
        return
    for conv_name, norm in found:
        conv: Any = plain.get_submodule(conv_name)
        (conv.weight, conv.bias), part = before[norm]
        put(plain, norm, part)
    half = len(found) // 2
    if half:
        _fold_all(plain, found[:half], images, wanted)
        _fold_all(plain, found[half:], images, wanted)


def _fused(plain: nn.Module, conv_name: str, norm_name: str) -> tuple[Any, Any]:
    """Put the BatchNorm into the convolution; gives back its old weight and bias."""
    conv: Any = plain.get_submodule(conv_name)
    norm: Any = plain.get_submodule(norm_name)
    old = conv.weight, conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return old


def pairs(plain: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Convolution and BatchNorm by name, where the one's output is the other's input and each runs once.

    Seen on ``images`` ``[n, c, h, w]`` as the network takes them, normalised; ``plain`` stays as it is.
    """
    clone = private_copy(plain)
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no two tensors have the same id
    calls: dict[str, int] = {}
    found: list[tuple[str, str]] = []

    def note(name: str, part: nn.Module) -> Any:
        def hook(_part: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(part, _CONVS):
                made[id(output)] = name
            elif id(inputs[0]) in made:
                found.append((made[id(inputs[0])], name))
            kept.extend((inputs[0], output))

        return hook

    for name, part in clone.named_modules():
        if isinstance(part, _CONVS) or (isinstance(part, _NORMS) and part.track_running_stats):
            part.register_forward_hook(note(name, part))
    with torch.no_grad():
        clone(images)
    return [(conv, norm) for conv, norm in found if calls[conv] == calls[norm] == 1]


def _outputs(module: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = module(images)
    rows = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else [found]
    return [row for row in rows if isinstance(row, Tensor)]


def _close(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(float((a - b).norm()) <= 1e-3 * float(a.norm()) + 1e-12 for a, b in zip(before, after, strict=True))
