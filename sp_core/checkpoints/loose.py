"""Weights without a graph: what can be built from names and shapes when no architecture fits them.

Names say which tensors belong together (``features.0.weight`` and ``features.0.bias``), and shapes say what they are:
four axes are a convolution, two a linear layer, running statistics a batch normalisation. How the layers are connected
nothing says, so nothing is run: every question that needs a forward pass is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sp_core.checkpoints.catalogue import empty_on_meta
from sp_core.errors import NeedsGraph

_MOST_NESTING = 24  # names nested deeper are kept whole: walking a module recurses
_TAKEN = frozenset(dir(nn.Module()))  # names that no layer can have; a file can
_USUAL_CHANNELS = (3, 1)
_MOST_CHANNELS = 16  # of an image; a weight with more inputs reads feature maps


class Loose(nn.Module):
    """A tree of layers that cannot be run. Its ``state_dict()`` holds exactly the tensors it was made of.

    (Only a tensor called like an attribute of every module, ``training``, becomes ``training_``.)

    ``of`` is what messages call the network.
    """

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of = of

    def forward(self, *_inputs: Any) -> Tensor:
        """Raises :class:`NeedsGraph`."""
        raise NeedsGraph(
            f"Of {self.of} only the weights are known, not how its layers are connected, so no image can be run "
            "through it. Its filters, spectra, symmetries and statistics can be seen; if you know its architecture, "
            "name it on the identity card."
        )


def loose(tensors: Mapping[str, Tensor], of: str) -> Loose:
    """The layers that ``tensors`` belong to, in the order of the file; ``of`` is what messages call the network.

    A ``weight`` of 3, 4 or 5 axes becomes a Conv1d, Conv2d or Conv3d (whose groups are unknown, so ``in_channels`` is
    the weight's second axis, and which may be a transposed one), of 2 axes a Linear, running statistics a BatchNorm;
    everything else is held by its name. The memory of the tensors is shared.

    >>> import torch
    >>> made = loose({"stem.0.weight": torch.zeros(8, 3, 5, 5), "odd": torch.zeros(2)}, of="a file")
    >>> made.get_submodule("stem.0"), list(made.state_dict())
    (Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1), bias=False), ['odd', 'stem.0.weight'])
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        steps = path.split(".")
        if not path or not leaf or len(steps) > _MOST_NESTING or not _TAKEN.isdisjoint(steps) or leaf in _TAKEN:
            path, leaf = "", name if name not in _TAKEN else f"{name}_"
        groups.setdefault(path, {})[leaf] = tensor
    root = Loose(of)
    with empty_on_meta():  # no memory, no random numbers: the values come from the file
        for path, own in groups.items():
            _place(root, path, _layer(own) if path else nn.Module(), own)
    return root.eval()


def _place(root: nn.Module, path: str, part: nn.Module, own: Mapping[str, Tensor]) -> None:
    """Put ``own`` into ``part`` and ``part`` at ``path``.

    Straight into the tables of ``nn.Module``: its methods refuse names (``a.b``, "") that a file may hold.
    """
    parent: nn.Module = root
    *above, last = path.split(".") if path else [""]
    for step in above:
        parent = parent._modules.setdefault(step, nn.Module())  # type: ignore[assignment]
    if path:
        before = parent._modules.get(last)
        if before is not None:  # made on the way to something below it
            part._modules.update(before._modules)
        parent._modules[last] = part
    else:
        part = root
    for leaf in [*part._parameters]:
        part._parameters[leaf] = None
    for leaf in [*part._buffers]:
        part._buffers[leaf] = None
    for leaf, tensor in own.items():
        if leaf in part._buffers or not tensor.is_floating_point():
            part._buffers[leaf] = tensor
        else:
            part._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)


def _layer(own: Mapping[str, Tensor]) -> nn.Module:
    """An empty layer of the kind that the shapes say; a plain module where they say nothing."""
    weight, mean = own.get("weight"), own.get("running_mean")
    bias = "bias" in own
    if mean is not None and mean.ndim == 1:
        return nn.BatchNorm2d(len(mean), affine=weight is not None or bias)
    if weight is None or not weight.is_floating_point() or 0 in weight.shape:
        return nn.Module()
    out, *rest = weight.shape
    if bias and own["bias"].shape != (out,):
        return nn.Module()
    kinds: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    if weight.ndim in kinds:
        return kinds[weight.ndim](rest[0], out, tuple(rest[1:]), bias=bias)
    if weight.ndim == 2:
        return nn.Linear(rest[0], out, bias=bias)
    return nn.Module()


def image_channels(tensors: Mapping[str, Tensor]) -> int | None:
    """How many channels the images have, by the convolution that is likeliest to read them; None without one.

    The first convolution of three input channels, else of one, else the first in the file if its inputs are few: files
    sorted by name do not begin with the first layer.

    >>> import torch
    >>> image_channels({"b.weight": torch.zeros(4, 8, 3, 3), "a.weight": torch.zeros(8, 3, 3, 3)})
    3
    """
    inputs = [tensor.shape[1] for tensor in tensors.values() if tensor.ndim == 4 and tensor.numel()]
    for usual in _USUAL_CHANNELS:
        if usual in inputs:
            return usual
    return inputs[0] if inputs and inputs[0] <= _MOST_CHANNELS else None
