"""What every channel of a layer puts out on one picture, and where on the picture each value stands.

Zeiler & Fergus 2014 ("Visualizing and understanding convolutional networks") looked at single maps; Yosinski et al.
2015 ("Understanding neural networks through deep visualization") showed those of a whole layer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sp_core.capture import activations
from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.receptive_field import ReceptiveField, UnitField, field_of, pair, receptive_fields
from sp_core.trace import Layer

Sort = Literal["index", "mean", "maximum"]
Scaling = Literal["map", "layer"]
QUANTILE = 0.995  # of the magnitudes that are not zero: one stray value must not grey a map


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The output of one layer for one image.

    Attributes:
        layer: its name.
        values: float32 ``[c, h, w]``, or ``[n]`` of a layer whose output is a vector.
        image: (height, width) of the image in pixels of the network's input.
        field: the receptive field of its units; None of a vector.
    """

    layer: str
    values: Tensor
    image: tuple[int, int]
    field: ReceptiveField | None = None

    @property
    def is_map(self) -> bool:
        """Whether there are maps, and not one number a channel."""
        return self.values.ndim == 3

    @property
    def signed(self) -> bool:
        """Whether any value is below 0: if not, the layer ends in a rectifier, or might as well."""
        return bool((self.values < 0).any())

    @property
    def silent(self) -> tuple[int, ...]:
        """Channels that are 0 everywhere on this image. On others they may speak."""
        zero = self.values.reshape(len(self.values), -1).eq(0).all(1)
        return tuple(zero.nonzero()[:, 0].tolist())

    def order(self, sort: Sort = "index") -> Tensor:
        """The channels by number, or by mean or largest value with the largest first: int64 ``[c]``."""
        flat = self.values.reshape(len(self.values), -1)
        by = {"mean": lambda: flat.mean(1), "maximum": lambda: flat.amax(1)}
        if sort == "index":
            return torch.arange(len(flat))
        if sort not in by:
            raise SpError(f"`sort` must be index, mean or maximum; got '{sort}'.")
        return by[sort]().argsort(descending=True, stable=True)

    def limits(self, scaling: Scaling = "map") -> Tensor:
        """The magnitude at the end of each channel's colour scale: float32 ``[c]``, 1 where a channel is silent.

        Of each map its own, or one of the whole layer: the 99.5 % quantile of the magnitudes, zeros left out.
        """
        if scaling not in {"map", "layer"}:
            raise SpError(f"`scaling` must be 'map' or 'layer'; got '{scaling}'.")
        flat = self.values.abs().reshape(len(self.values), -1)
        rows = flat if scaling == "map" else flat.reshape(1, -1)
        found = torch.stack([_end(row) for row in rows])
        return found if scaling == "map" else found.expand(len(flat))

    def peak(self, channel: int) -> tuple[int, int]:
        """(y, x) of the largest value of a map; the first of several."""
        return divmod(int(self.values[channel].argmax()), self.values.shape[2])

    @property
    def aligned(self) -> bool:
        """Whether every unit has a place of its own on the image; not behind a global pool, or where all see all."""
        field = self.field
        return field is not None and field.status in {"complete", "partial"} and min(pair(field.stride)) > 0

    def over_image(self, channel: int) -> Tensor:
        """The map at the image's pixels: float32 ``[height, width]``, linear between units.

        Each value stands at the centre of its unit's receptive field, so that the map lies where the network looked.
        Resizing the map to the image is off by up to half a stride, or more without padding. Pixels beyond the
        outermost centres take the nearest unit's value. Where the units have no places of their own (``aligned`` is
        False) the map is spread evenly over the image.
        """
        values = self.values[channel]
        y, x = (self._weights(channel, axis) for axis in (0, 1))
        return y @ values @ x.T

    def _weights(self, channel: int, axis: int) -> Tensor:
        """What each unit along an axis gives to each pixel: ``[pixels, units]``, rows sum to 1."""
        units, pixels = self.values.shape[1 + axis], self.image[axis]
        at = torch.arange(pixels, dtype=torch.float64)
        if self.aligned and self.field is not None:
            box = self.field.box(0, 0, channel)
            start, stop = (box.y0, box.y1) if axis == 0 else (box.x0, box.x1)
            place = (at - (start + stop - 1) / 2) / pair(self.field.stride)[axis]
        else:
            place = (at + 0.5) * units / pixels - 0.5
        gap = (place.clamp(0, units - 1)[:, None] - torch.arange(units)).abs()
        return (1 - gap).clamp_min(0).to(self.values.dtype)


def _end(row: Tensor) -> Tensor:
    there = row[row.isfinite() & (row > 0)]
    if not len(there):
        return torch.ones(())
    return there.kthvalue(max(1, round(QUANTILE * len(there)))).values


def shown_layers(net: Network) -> list[Layer]:
    """The layers whose output is a stack of maps or a vector, in execution order."""
    return [layer for layer in net.layers if layer.is_map or len(layer.output_shape) == 1]


def feature_maps_of(net: Network, layer: str, image: Tensor) -> FeatureMaps:
    """The output of ``layer`` for one image ``[1, c, h, w]`` or ``[c, h, w]`` in [0, 1].

    Raises:
        SpError: there is no such layer, or its output is neither maps nor a vector.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), input_size=(3, 8, 8))
    >>> maps = feature_maps_of(net, "1", torch.rand(3, 8, 8))
    >>> maps.values.shape, maps.over_image(2).shape
    (torch.Size([4, 6, 6]), torch.Size([8, 8]))
    """
    known = net.layer_with_units(layer)
    if not known.is_map and len(known.output_shape) != 1:
        raise SpError(
            f"Layer {layer} gives {list(known.output_shape)}, neither maps nor a vector; choose another layer."
        )
    with torch.no_grad():
        values = activations(net, image, [layer])[layer][0].detach().float().cpu()
    size = (int(image.shape[-2]), int(image.shape[-1]))
    return FeatureMaps(layer, values, size, receptive_fields(net).get(layer) if known.is_map else None)


def seen_by_peak(net: Network, maps: FeatureMaps, channel: int) -> UnitField:
    """The receptive field of the unit in which a map is largest."""
    return field_of(net, Unit(maps.layer, channel, maps.peak(channel)))
