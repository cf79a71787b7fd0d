"""Which convolution reads the image: known where the network runs, guessed where only its weights are known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from sp_core.errors import SpError
from sp_core.network import Network

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LATE = re.compile(r"(^|[._])(dec\w*|up\w*|deconv\w*|generator|out\w*|head\w*|final\w*)([._]|$)", re.IGNORECASE)
_COLOURS = {3: "the three colours of an image", 1: "a grey image"}


@dataclass(frozen=True)
class Stem:
    """The convolution that reads the image.

    Attributes:
        layer: its name.
        reason: why it is taken for that, as a sentence; "" where the network says so itself.
    """

    layer: str
    reason: str = ""


def convolutions(net: Network) -> tuple[str, ...]:
    """The names of the Conv1d, Conv2d and Conv3d layers, in execution order, each once; without a graph, in the file's.

    Raises:
        SpError: the network has none.

    >>> convolutions(Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="one", input_size=(3, 8, 8)))
    ('0',)
    """
    if net.has_graph:
        paths = [layer.module for layer in net.layers if layer.call == 1]
    else:
        paths = [name for name, _ in net.module.named_modules()]
    names = [path for path in paths if isinstance(net.module.get_submodule(path), KINDS)]
    if not names:
        leaves = (part for part in net.module.modules() if next(part.children(), None) is None)
        kinds = sorted({type(part).__name__ for part in leaves if type(part) is not nn.Module})
        raise SpError(
            f"{net.name} has no convolution, so it has no filters to show (its layers are {', '.join(kinds[:6])}); "
            "choose another network, or look at its weight matrices."
        )
    return tuple(names)


def has_convolution(net: Network) -> bool:
    """Whether there is a convolution among the modules, whether it runs or not."""
    return any(isinstance(part, KINDS) for part in net.module.modules())


def find_stem(net: Network) -> Stem:
    """The first convolution whose input has the image's channels; if there is none, the first convolution.

    Where only the weights are known: the first in the file with three input channels, else with one; one that its
    name puts at the end (``decoder``, ``up`` …) only if there is no other.

    Raises:
        SpError: the network has no convolution.

    >>> from sp_core.checkpoints.loose import loose
    >>> import torch
    >>> made = loose({"a.weight": torch.ones(8, 8, 3, 3), "b.weight": torch.ones(8, 3, 5, 5)}, "a file")
    >>> find_stem(Network(made, confidence="weights-only")).layer
    'b'
    """
    names = convolutions(net)
    wanted = net.input_size[0]
    fitting = [name for name in names if _inputs(net, name) == wanted]
    if net.has_graph:
        return Stem(next(iter(fitting), names[0]))
    early = [name for name in fitting if not _LATE.search(name)]
    if not fitting:
        return Stem(names[0], f"Layer {names[0]} is the first convolution in the file; {_UNKNOWN}")
    layer = (early or fitting)[0]
    reads = _COLOURS.get(wanted, f"an image of {wanted} channels")
    others = f", the first of {len(fitting)} such in the file" if len(fitting) > 1 else ", the only such in the file"
    inputs = f"{wanted} input channel{'' if wanted == 1 else 's'}"
    return Stem(
        layer,
        f"Layer {layer} is taken for the one that reads {reads}: its filters have {inputs}{others}. "
        "That is a guess from shapes; any other convolution can be chosen.",
    )


_UNKNOWN = "which one reads the input, nothing says, so choose another where you know better."


def _inputs(net: Network, name: str) -> int:
    module: Any = net.module.get_submodule(name)
    return int(module.in_channels)
