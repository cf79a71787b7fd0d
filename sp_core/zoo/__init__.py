"""Architectures that can be made by name: one file a family, one table of names.

>>> import torch
>>> net = create("textures-resnet", classes=10)
>>> net(torch.zeros(1, 3, 64, 64)).shape
torch.Size([1, 10])

A family file holds plain functions ``(**options) -> nn.Module`` and a table ``ENTRIES``. A family of endlessly many
members lists the usual ones, and its ``by_name`` makes any other (``wrn-22-3``, ``resnet152-root16``). To add a family,
write the file and add it to ``_FAMILIES``.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import nn

from sp_core.errors import SpError
from sp_core.zoo import (
    alexnet,
    cifar_resnet,
    cifar_vgg,
    cifar_wide_stages,
    condensenet,
    densenet,
    dirac_net,
    fcn,
    first_networks,
    fractalnet,
    from_torchvision,
    googlenet,
    hrnet,
    lenet_1998,
    mobilenet_v1,
    msdnet,
    nin,
    preact_resnet,
    pytorch_cifar,
    resnet_roots,
    resnext_cifar,
    se_resnet,
    shufflenet_v1,
    temporal,
    textures,
    unet,
    uva_cifar,
    vgg16_c,
    vgg_low_rank,
    wide_bottleneck,
    wide_resnet,
    wide_resnet_imagenet,
    xception,
)
from sp_core.zoo.entry import Entry

_FAMILIES: tuple[Any, ...] = (
    *(textures, cifar_resnet, cifar_wide_stages, cifar_vgg, wide_resnet, uva_cifar, first_networks, pytorch_cifar),
    *(lenet_1998, alexnet, vgg16_c, vgg_low_rank, nin, googlenet, resnet_roots, preact_resnet, wide_resnet_imagenet),
    *(wide_bottleneck, dirac_net, fractalnet, densenet, resnext_cifar, mobilenet_v1, shufflenet_v1, condensenet),
    *(xception, se_resnet, hrnet, msdnet, fcn, unet, temporal, from_torchvision),
)
_ENTRIES: dict[str, Entry] = {name: entry for family in _FAMILIES for name, entry in family.ENTRIES.items()}
_SOME = "such as textures-vgg, cifar-resnet18 and wrn-16-1"


def names() -> list[str]:
    """Every name that is listed, in alphabetical order; of some families :func:`create` knows more.

    >>> "textures-alexnet" in names()
    True
    """
    return sorted(_ENTRIES)


def entry(name: str) -> Entry:
    """How the network ``name`` is made and fed: input size, normalisation, class names.

    >>> entry("textures-vgg").input_size
    (3, 64, 64)
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    found = next((e for family in _FAMILIES if hasattr(family, "by_name") and (e := family.by_name(name))), None)
    if found is None:
        close = difflib.get_close_matches(name, _ENTRIES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"sp.zoo.names() lists all {len(_ENTRIES)}, {_SOME}"
        raise SpError(f"'{name}' is not an architecture of the zoo; {hint}")
    return found


def create(name: str, **options: Any) -> nn.Module:
    """A new, untrained network in training mode; ``classes=`` is the number of outputs.

    Some families have more options: ``symmetry=`` (wide residual networks), ``exits=`` (MSDNet), ``auxiliary=``
    (GoogLeNet), ``batch_norm=`` (network in network), ``stride=`` (VGG-11), ``inputs=`` and ``hidden=`` (LSTM, GRU); a
    wrong one is answered with the list.

    Weights are drawn from torch's global generator: call ``torch.manual_seed`` first for the same ones again.

    >>> import torch
    >>> create("textures-alexnet", classes=5)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """
    make = entry(name).make
    allowed = list(inspect.signature(make).parameters)
    wrong = sorted(set(options) - set(allowed))
    if wrong:
        raise SpError(f"'{wrong[0]}' is not an option of {name}; its options are: {', '.join(allowed)}")
    classes = options.get("classes", 1)
    if not isinstance(classes, int) or classes < 1:
        raise SpError(f"classes must be a whole number of 1 or more, got {classes!r}; give the number of outputs")
    return make(**options)
