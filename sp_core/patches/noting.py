"""What a forward pass leaves of each map: the largest value of every channel, and where it is.

Hooks on one private copy of the network note both as soon as a map is there, and it is gone before the next layer's.
Few images go through at once, so that maps stay in the processor's cache. Layers that only stretch or clip the values
of the layer before them have no hooks: their largest value is made of that layer's, for a whole block at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sp_core.network import Network
from sp_core.overwriting import in_place
from sp_core.patches.plan import rising
from sp_core.trace import LayerNames, layer_name, single

_Array = np.ndarray[Any, Any]


class Notes:
    """The largest values of a block of images, filled a batch at a time.

    Args:
        net: the network; it is not touched.
        columns: where the channels of each layer stand in what :meth:`rise` gives.

    ``clone`` is the private copy that :meth:`note` runs.
    """

    def __init__(self, net: Network, columns: Mapping[str, slice]) -> None:
        self.net, self.columns = net, columns
        self.clone = in_place(net.clone())
        self.rising = rising(net, columns)
        widths = {name: where.stop - where.start for name, where in columns.items()}
        widths |= {name: int(rise.turned.sum()) for name, rise in self.rising.items()}
        self.heard = {name: width for name, width in widths.items() if width}  # those that are looked for in their maps
        self.pieces: dict[str, tuple[Any, Any]] = {}  # of the forward pass at work, by layer
        self.block: tuple[Any, Any] = (None, None)  # maxima and places [images, heard channels], numpy's on the CPU
        self.rows = slice(0)  # of the batch at work
        self.names = LayerNames(self.clone)
        self.starts: dict[tuple[int, int], _Array] = {}  # where each row of [n, cells] begins
        self.wide: dict[int, _Array] = {}  # see `first_maxima`
        paths = {name.split("#")[0] for name in self.heard}
        for path, part in self.clone.named_modules():
            if path in paths:
                part.register_forward_hook(self._hear)

    def begin(self, count: int) -> None:
        """Make room for ``count`` images; what is not noted of them stays NaN, so that it is found out."""
        shape, device = (count, sum(self.heard.values())), self.net.device
        maxima = torch.full(shape, torch.nan, device=device)
        places = torch.zeros(shape, dtype=torch.int32, device=device)
        self.block = (maxima.numpy(), places.numpy()) if device.type == "cpu" else (maxima, places)
        self.rows = slice(0)

    def note(self, pixels: Tensor) -> None:
        """Note the maxima of the next images ``[b, c, h, w]``."""
        if not len(pixels):
            return
        self.names.calls.clear()
        self.pieces.clear()
        self.rows = slice(self.rows.stop, self.rows.stop + len(pixels))
        with torch.no_grad():
            self.clone(self.net.normalise(self.net.check_images(pixels)))
        if len(self.pieces) == len(self.heard):  # else a network that runs other layers on some images
            join: Any = np.concatenate if self.net.device.type == "cpu" else torch.cat
            for which, array in enumerate(self.block):
                join([self.pieces[name][which] for name in self.heard], 1, out=array[self.rows])
        self.pieces.clear()

    def read(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Maxima float32 and places int32 ``[images, heard channels]`` of ``rows`` of the block, on the device."""
        maxima, places = (torch.as_tensor(array[rows]) for array in self.block)
        return maxima, places

    @torch.no_grad()
    def rise(self, values: Tensor) -> Tensor:
        """What all channels make of values ``[n, heard channels]``: ``[n, channels]``."""
        pieces = dict(zip(self.heard, values.to(self.net.device).split([*self.heard.values()], 1), strict=True))
        found: dict[str, Tensor] = {}
        for name in self.columns:  # in order of execution
            rise = self.rising.get(name)
            if rise is None:
                found[name] = pieces[name]
                continue
            part = self.net.module.get_submodule(name.split("#")[0])  # overwrites nothing
            found[name] = part.forward(found[rise.before][:, :, None, None])[:, :, 0, 0]
            if name in pieces:  # channels that are turned round were looked for in the map itself
                found[name][:, rise.turned] = pieces[name]
        return torch.cat([found[name] for name in self.columns], 1)

    def _hear(self, part: nn.Module, _inputs: Any, output: Any) -> None:
        name = layer_name(*self.names.next(part))
        tensor = single(output) if name in self.heard else None
        if tensor is None:
            return
        rise = self.rising.get(name)
        self.pieces[name] = self._largest(tensor if rise is None else tensor[:, rise.turned])

    def _largest(self, maps: Tensor) -> tuple[Any, Any]:
        """The largest value of each map of ``[b, c, h, w]`` and where it comes first: float32 and whole ``[b, c]``.

        Of vectors the elements. On the CPU by numpy, whose search is several times as fast as torch's: it takes 64
        values at a time.
        """
        shape = maps.shape[:2]
        if maps.device.type != "cpu":
            values, places = maps.reshape(*shape, -1).max(2)
            return values.float(), places.int()
        rows = maps.float().numpy().reshape(shape[0] * shape[1], -1)
        at = first_maxima(rows, self.wide)
        if rows.shape not in self.starts:
            self.starts[rows.shape] = np.arange(0, rows.size, rows.shape[1])
        return rows.ravel().take(at + self.starts[rows.shape]).reshape(shape), at.reshape(shape)


def first_maxima(rows: _Array, wide: dict[int, _Array]) -> _Array:
    """Where the largest value of each row of float32 ``[n, cells]`` comes first: ``[n]``.

    ``wide`` keeps the room for rows of 64: what is left of 64 is searched one at a time, which would take 7 × 7 maps
    twice as long.
    """
    count, cells = rows.shape
    if not 16 < cells < 64:
        return rows.argmax(1)
    if count not in wide:
        wide[count] = np.empty((count, 64), np.float32)
    room = wide[count]
    room[:, :cells] = rows
    room[:, cells:] = -np.inf
    return room.argmax(1)
