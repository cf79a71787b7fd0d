"""GoogLeNet as in the paper and as in Caffe, with low-rank filters, and with root modules.

Szegedy et al., "Going deeper with convolutions", CVPR 2015, table 1, with both auxiliary classifiers, which are layers
(``loss1.classifier``, ``loss2.classifier``); the network returns the last logits. Torchvision's ``googlenet`` is
another network: with BatchNorm, and with 3 × 3 filters where the paper has 5 × 5.

``googlenet-lr`` and its relatives (Ioannou et al., "Training CNNs with low-rank filters", ICLR 2016): n × n filters of
the inception modules become half 1 × n and half n × 1 (``lr``), also in the first two layers (``lr-conv1``), or joined
by a 1 × 1 convolution (``lr-join``). ``googlenet-rootG`` (Ioannou et al., "Deep roots", CVPR 2017): filter groups,
fewer the deeper, in the 3 × 3 and 5 × 5 layers of ``googlenet-bn``, which has BatchNorm without trained scale and
shift.

The three tables were made with different poolings, so that their maps differ by a pixel or two: the sizes are those
that the published counts imply, 112/56/28/14/7, 112/57/29/15/8 (low rank) and 112/56/28/15/8 (roots). Part of the
published saving of ``lr`` against GoogLeNet is therefore hidden: at equal maps its layers save 33 %, not 26 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained
from sp_core.zoo.vgg_low_rank import Composite

# Table 1: 1 × 1, 3 × 3 reduce, 3 × 3, 5 × 5 reduce, 5 × 5, pool projection.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Kind:
    """How a network of the family differs: its spatial layers, its normalisation and its poolings.

    ``low_rank``: "", "inception" or "all". ``groups``: of conv2 and of inception modules 3, 4 and 5; BatchNorm comes
    with them. ``pads``: padding of the four poolings of stride 2.
    """

    low_rank: str = ""
    join: bool = False
    groups: tuple[int, int, int, int] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def norm(self) -> bool:
        """Whether BatchNorm follows each convolution; else local response normalisation follows the first ones."""
        return self.groups is not None

    def spatial(self, stage: int, channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Module:
        """A layer of ``size`` × ``size`` filters of stage 1 (conv1), 2 (conv2) to 5, with what follows it."""
        conv: nn.Module
        if self.low_rank == "all" or (self.low_rank and stage > 2):
            conv = Composite(channels_in, {(1, size): channels // 2, (size, 1): channels // 2}, self.join, stride)
        else:
            groups = self.groups[stage - 2] if self.groups and stage > 1 else 1
            conv = nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, groups=groups)
        return self.followed(conv, channels)

    def point(self, channels_in: int, channels: int) -> nn.Module:
        """A 1 × 1 layer with what follows it."""
        return self.followed(nn.Conv2d(channels_in, channels, kernel_size=1), channels)

    def followed(self, conv: nn.Module, channels: int) -> nn.Module:
        """``conv``, BatchNorm if there is any, ReLU."""
        layers = {"conv": conv, "bn": nn.BatchNorm2d(channels, affine=False), "relu": nn.ReLU(inplace=True)}
        return _sequence({name: part for name, part in layers.items() if name != "bn" or self.norm})


def _sequence(parts: dict[str, nn.Module]) -> nn.Sequential:
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


class Inception(nn.Module):
    """Four branches on one input, their maps one after the other."""

    def __init__(self, kind: Kind, stage: int, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.branch1x1 = kind.point(channels_in, one)
        self.reduce3x3 = kind.point(channels_in, reduce3)
        self.branch3x3 = kind.spatial(stage, reduce3, three, 3)
        self.reduce5x5 = kind.point(channels_in, reduce5)
        self.branch5x5 = kind.spatial(stage, reduce5, five, 5)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.pool_proj = kind.point(channels_in, pool)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h, w]``."""
        three, five = self.branch3x3(self.reduce3x3(x)), self.branch5x5(self.reduce5x5(x))
        return torch.cat([self.branch1x1(x), three, five, self.pool_proj(self.pool(x))], 1)


def _auxiliary(kind: Kind, channels: int, side: int, classes: int) -> nn.Sequential:
    parts = {
        "pool": nn.AvgPool2d(5, 3, ceil_mode=True),
        "conv": kind.point(channels, 128),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(128 * side * side, 1024),
        "relu": nn.ReLU(inplace=True),
        "drop": nn.Dropout(0.7),
        "classifier": nn.Linear(1024, classes),
    }
    return _sequence(parts)


class GoogLeNet(nn.Module):
    """Images ``[n, 3, 224, 224]`` to logits ``[n, classes]``; ``auxiliary``: with the two side classifiers."""

    def __init__(self, kind: Kind, auxiliary: bool = True, classes: int = 1000) -> None:
        super().__init__()
        pads = kind.pads
        side, end = (5, 2) if pads[2] else (4, 1)
        self.conv1 = kind.spatial(1, 3, 64, 7, stride=2)  # [n, 64, 112, 112]
        self.pool1 = nn.MaxPool2d(3, 2, padding=pads[0], ceil_mode=True)
        self.norm1 = nn.Identity() if kind.norm else nn.LocalResponseNorm(5)
        self.conv2_reduce = kind.point(64, 64)
        self.conv2 = kind.spatial(2, 64, 192, 3)
        self.norm2 = nn.Identity() if kind.norm else nn.LocalResponseNorm(5)
        self.pool2 = nn.MaxPool2d(3, 2, padding=pads[1], ceil_mode=True)
        channels = 192
        for name, widths in _MODULES.items():
            self.add_module(f"inception_{name}", Inception(kind, int(name[0]), channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.pool3 = nn.MaxPool2d(3, 2, padding=pads[2], ceil_mode=True)
        self.pool4 = nn.MaxPool2d(3, 2, padding=pads[3], ceil_mode=True)
        self.loss1 = _auxiliary(kind, 512, side, classes) if auxiliary else None
        self.loss2 = _auxiliary(kind, 528, side, classes) if auxiliary else None
        self.pool5 = nn.AvgPool2d(7, 1)  # [n, 1024, end, end]
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(1024 * end * end, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.pool2(self.norm2(self.conv2(self.conv2_reduce(x))))
        maps = {}
        for name in _MODULES:
            maps[name] = x = self.get_submodule(f"inception_{name}")(x)
            if name in ("3b", "4e"):
                x = (self.pool3 if name == "3b" else self.pool4)(x)
        x = self.pool5(x)
        # Only now, because they take one size of image only: on a larger one the layers above can still be looked at.
        if self.loss1 is not None and self.loss2 is not None:
            self.loss1(maps["4a"])
            self.loss2(maps["4d"])
        return self.fc(torch.flatten(self.drop(x), 1))


def _make(kind: Kind, classes: int = 1000, auxiliary: bool = True) -> nn.Module:
    return GoogLeNet(kind, auxiliary, classes)


def _entry(about: str, mark: str, kind: Kind) -> Entry:
    marks = {f"inception_5b.branch3x3.conv{mark}", "loss2.fc.weight", "conv2_reduce.conv.weight", "fc.weight"}
    return untrained(partial(_make, kind), (3, 224, 224), about, marks)


_PADDED = (1, 1, 1, 1)
ENTRIES: dict[str, Entry] = {
    "googlenet-bvlc": _entry("GoogLeNet with its auxiliary classifiers (Szegedy et al. 2015)", ".weight", Kind()),
    "googlenet-lr": _entry(
        "GoogLeNet, inception modules of 1 × n and n × 1 filters (Ioannou et al. 2016)",
        ".filters1x3.weight",
        Kind("inception", pads=_PADDED),
    ),
    "googlenet-lr-conv1": _entry(
        "GoogLeNet of 1 × n and n × 1 filters from the first layer on (Ioannou et al. 2016)",
        ".filters1x3.weight",
        Kind("all", pads=_PADDED),
    ),
    "googlenet-lr-join": _entry(
        "GoogLeNet, inception modules of 1 × n and n × 1 filters, joined (Ioannou et al. 2016)",
        ".join.weight",
        Kind("inception", join=True, pads=_PADDED),
    ),
    "googlenet-bn": _entry(
        "GoogLeNet with BatchNorm, the baseline of 'Deep roots' (Ioannou et al. 2017)",
        ".weight",
        Kind(groups=(1, 1, 1, 1), pads=(0, 0, 1, 1)),
    ),
} | {
    f"googlenet-root{root}": _entry(
        f"GoogLeNet with BatchNorm and {', '.join(str(max(root >> i, 1)) for i in range(4))} filter groups, a root "
        "(Ioannou et al. 2017)",
        ".weight",
        Kind(groups=(root, max(root >> 1, 1), max(root >> 2, 1), max(root >> 3, 1)), pads=(0, 0, 1, 1)),
    )
    for root in (2, 4, 8, 16)
}
