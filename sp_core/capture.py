"""What layers put out: captured on a private copy, and the forward pass stops after the last one asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.trace import LayerNames, layer_name, single


class _Stop(Exception):  # not an error: it ends a forward pass early
    """Everything that was asked for has been captured."""


def capture(clone: nn.Module, inputs: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Run ``clone`` (a private copy) on normalised ``inputs`` until all ``layers`` have put out.

    The maps stay in the autograd graph, and no later in-place operation overwrites them: what runs on is a copy.
    """
    wanted = set(layers)
    found: dict[str, Tensor] = {}
    names, count = LayerNames(clone), len(inputs)

    def note(part: nn.Module, _inputs: Any, output: Any) -> Any:
        path, call = names.next(part)
        name = layer_name(path, call)
        tensor = single(output)
        if name not in wanted or tensor is None:
            return None
        # What does not depend on the image comes once, not once an image.
        found[name] = tensor.expand(count, *tensor.shape[1:]) if len(tensor) == 1 < count else tensor
        if len(found) == len(wanted):
            raise _Stop
        return tensor.clone() if isinstance(output, Tensor) else None

    paths = {name.split("#")[0] for name in wanted}
    handles = [part.register_forward_hook(note) for name, part in clone.named_modules() if name in paths]
    try:
        clone(inputs)
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = sorted(wanted - set(found))
    if missing:
        raise SpError(f"{len(missing)} layers did not run on this input: {', '.join(missing[:5])}.")
    return found


def activations(net: Network, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """The outputs of ``layers`` for images ``[n, c, h, w]`` in [0, 1]: layer name to ``[n, …output_shape]``.

    Differentiable with respect to the images when they require gradients (the weights never do).

    Raises:
        SpError: a layer does not exist, or the images have the wrong shape.
    """
    names = [net.layer(name).name for name in layers]
    return capture(net.clone(), net.normalise(net.check_images(images)), names)
