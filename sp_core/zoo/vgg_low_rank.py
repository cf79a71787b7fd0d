"""VGG-11 with low-rank filters, and its relatives: a layer of 1 × 3 beside 3 × 1 filters instead of 3 × 3 ones.

Ioannou, Robertson, Shotton, Cipolla and Criminisi, "Training CNNs with low-rank filters for efficient image
classification", ICLR 2016, and Ioannou's thesis (Cambridge 2017), chapter 4. A *composite layer* runs groups of filters
of different shapes on the same input, concatenates their maps, and has one ReLU:

===========================  ===========================================================================================
``vgg11-gmp``                VGG-11 with global max pooling before fc6
``vgg11-gmp-sf``             sequential separable filters: 1 × 3, then 3 × 1, and a ReLU after the pair
``vgg11-gmp-lr``             half 1 × 3 beside half 3 × 1
``vgg11-gmp-lr-join``        the same, joined by a 1 × 1 convolution before the ReLU
``vgg11-gmp-lr-2x``          ``lr`` with twice the filters in conv5
``vgg11-gmp-lr-join-wfull``  3/8 1 × 3, 3/8 3 × 1 and 1/4 full 3 × 3, joined, with twice the filters in conv5
===========================  ===========================================================================================

The printed table of the paper doubles *all* layers of ``2x``, and none of ``wfull``; only what is written here has the
parameters and the operations that the paper reports. ``condnet-vgg11`` is the thesis's conditional network (chapter 6)
with implicit routing: each filter group of the deeper layers is a route, and sees only the maps of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

# Widths of column A (Simonyan and Zisserman, ICLR 2015); a pooling follows each group.
_LAYERS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_NAMES = (("conv1_1",), ("conv2_1",), ("conv3_1", "conv3_2"), ("conv4_1", "conv4_2"), ("conv5_1", "conv5_2"))


class Composite(nn.Module):
    """Filters of several shapes on one input, their maps one after the other; ``join``: then a 1 × 1 convolution."""

    def __init__(self, channels_in: int, shapes: dict[tuple[int, int], int], join: bool, stride: int = 1) -> None:
        super().__init__()
        for (h, w), channels in shapes.items():
            conv = nn.Conv2d(channels_in, channels, (h, w), stride=stride, padding=(h // 2, w // 2))
            self.add_module(f"filters{h}x{w}", conv)
        width = self.out_channels = sum(shapes.values())
        self.join = nn.Conv2d(width, width, kernel_size=1) if join else None
        # Equation 4 of the paper: He's initialisation counts the outgoing connections of all groups together.
        outgoing = sum(h * w * channels for (h, w), channels in shapes.items())
        for name, part in self.named_children():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=(2 / (outgoing if name != "join" else width)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h, w]``."""
        maps = torch.cat([part(x) for name, part in self.named_children() if name != "join"], 1)
        return maps if self.join is None else self.join(maps)


def full(channels_in: int, width: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """An ordinary layer of 3 × 3 filters."""
    conv = nn.Conv2d(channels_in, width, kernel_size=3, stride=stride, padding=1, groups=groups)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def low_rank(channels_in: int, width: int, join: bool = False, share_full: float = 0.0) -> nn.Module:
    """Half 1 × 3 and half 3 × 1 filters, less the share of full 3 × 3 ones."""
    square = int(width * share_full)
    shapes = {(1, 3): (width - square) // 2, (3, 1): (width - square) // 2}
    return Composite(channels_in, shapes | ({(3, 3): square} if square else {}), join)


def separable(channels_in: int, width: int) -> nn.Module:
    """1 × 3 filters, then 3 × 1 filters of their maps, without a ReLU between."""
    first = nn.Conv2d(channels_in, width, (1, 3), padding=(0, 1))
    second = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
    for conv in (first, second):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(first, second)


class VGG11(nn.Module):
    """VGG-11 with layers made by ``layer`` and global max pooling; images ``[n, 3, 224, 224]`` to ``[n, classes]``.

    ``last``: filters of conv5_1 and conv5_2. ``stride``: of a full first layer. ``groups``: of the layers of conv3,
    conv4 and conv5.
    """

    def __init__(
        self,
        layer: Callable[[int, int], nn.Module],
        last: tuple[int, int] = (512, 512),
        stride: int = 1,
        groups: tuple[int, int, int] = (1, 1, 1),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        channels = 3
        for index, (widths, names) in enumerate(zip((*_LAYERS[:4], last), _NAMES, strict=True)):
            for width, name in zip(widths, names, strict=True):
                if index == 0 and stride > 1:
                    self.add_module(name, full(channels, width, stride))
                elif index >= 2 and groups[index - 2] > 1:
                    self.add_module(name, full(channels, width, groups=groups[index - 2]))
                else:
                    self.add_module(name, layer(channels, width))
                self.add_module(name.replace("conv", "relu"), nn.ReLU(inplace=True))
                channels = width
            self.add_module(f"pool{index + 1}", nn.AdaptiveMaxPool2d(1) if index == 4 else nn.MaxPool2d(2))
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(channels, 4096)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout()
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout()
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        for part in self.children():
            x = part(x)
        return x


def _make(layer: Callable[[int, int], nn.Module], options: dict[str, Any], classes: int = 1000) -> nn.Module:
    return VGG11(layer, classes=classes, **options)


def _make_full(options: dict[str, Any], classes: int = 1000, stride: int = 1) -> nn.Module:
    """``stride`` 2 in the first layer is the paper's quick version: a quarter of the operations."""
    return VGG11(full, classes=classes, stride=stride, **options)


def _entry(about: str, layer: Callable[[int, int], nn.Module], mark: str, **options: Any) -> Entry:
    make = partial(_make_full, options) if layer is full else partial(_make, layer, options)
    return untrained(make, (3, 224, 224), about, {f"conv1_1{mark}.weight", f"conv5_2{mark}.weight", "fc6.weight"})


ENTRIES: dict[str, Entry] = {
    "vgg11-gmp": _entry("VGG-11 with global max pooling (Ioannou et al., ICLR 2016)", full, ""),
    "vgg11-gmp-sf": _entry(
        "VGG-11 of separable filters, 1 × 3 then 3 × 1 (Ioannou et al., ICLR 2016)", separable, ".1"
    ),
    "vgg11-gmp-lr": _entry("VGG-11, half 1 × 3 and half 3 × 1 filters (Ioannou et al. 2016)", low_rank, ".filters1x3"),
    "vgg11-gmp-lr-2x": _entry(
        "VGG-11 of 1 × 3 and 3 × 1 filters, twice as many in conv5 (Ioannou et al. 2016)",
        low_rank,
        ".filters1x3",
        last=(1024, 1024),
    ),
    "vgg11-gmp-lr-join": _entry(
        "VGG-11 of 1 × 3 and 3 × 1 filters joined by 1 × 1 ones (Ioannou et al. 2016)",
        partial(low_rank, join=True),
        ".join",
    ),
    "vgg11-gmp-lr-join-wfull": _entry(
        "VGG-11 of 1 × 3, 3 × 1 and a quarter of full 3 × 3 filters, joined (Ioannou et al. 2016)",
        partial(low_rank, join=True, share_full=0.25),
        ".filters3x3",
        last=(1024, 1024),
    ),
    "vgg11-gmp-wide": _entry(
        "VGG-11 with global max pooling and 512 and 1024 filters in conv5 (Ioannou, thesis, chapter 6)",
        full,
        "",
        last=(512, 1024),
    ),
    "condnet-vgg11": _entry(
        "Conditional network with implicit routing: 2, 4 and 8 filter groups in a VGG-11 (Ioannou, thesis, chapter 6)",
        full,
        "",
        last=(1024, 1024),
        groups=(2, 4, 8),
    ),
}
