"""Wide residual networks for CIFAR: WRN-d-k has d layers and k times ResNet's channels.

Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, table 1: three groups of (d − 4) / 6 blocks with 16k, 32k
and 64k channels, B(3, 3), BatchNorm and ReLU before each convolution. The names of weights are those of the usual
PyTorch version (github.com/xternalz/WideResNet-pytorch). Dropout between the two convolutions has no weights and
does nothing in evaluation, so it is left out.
"""

from __future__ import annotations

import re
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.parameterizations import apply
from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES
from sp_core.zoo.entry import Entry

# (depth, width): those of the paper's tables, and those that distillation and robustness papers use.
_USUAL = (
    *((10, 1), (10, 2), (16, 1), (16, 2), (16, 4), (16, 8), (16, 10), (22, 8), (28, 1), (28, 2), (28, 4), (28, 8)),
    *((28, 10), (28, 12), (34, 10), (40, 1), (40, 2), (40, 4), (40, 8)),
)


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3 × 3, twice; across a change of width the skip is a 1 × 1 convolution of the first ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn1(x))
        skip = x if self.convShortcut is None else self.convShortcut(out)
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + skip


class Group(nn.Module):
    """Blocks of one width, under the name ``layer``."""

    def __init__(self, channels_in: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(channels_in, channels, stride)
        self.layer = nn.Sequential(first, *(WideBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-``depth``-``width``; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 16, width: int = 1, classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.block1 = Group(16, 16 * width, blocks, 1)
        self.block2 = Group(16 * width, 32 * width, blocks, 2)
        self.block3 = Group(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))  # [n, 64 · width, h / 4, w / 4]
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def _make(depth: int, width: int, classes: int = 10, symmetry: str | None = None) -> nn.Module:
    """``symmetry``: of each block's second convolution, the only one that is always square, as in Hu, Zagoruyko and
    Komodakis 2018; one of ``sp_core.parameterizations.names("symmetric")``.
    """
    net = WideResNet(depth, width, classes)
    return net if symmetry is None else apply(net, symmetry, layers=["block*.conv2"], fresh=True)


def _entry(depth: int, width: int) -> Entry:
    return Entry(
        make=partial(_make, depth, width),
        input_size=(3, 32, 32),
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
        std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        classes=CIFAR10_CLASSES,
        about=f"WRN-{depth}-{width} for CIFAR-10 (Zagoruyko and Komodakis 2016)",
        marks=frozenset(
            {f"block3.layer.{(depth - 4) // 6 - 1}.conv2.weight", "block1.layer.0.bn1.weight", "fc.weight"}
        ),
        caveat="Mean and std are guessed: those of CIFAR-10's training pixels; the file does not say.",
    )


def by_name(name: str) -> Entry | None:
    """The entry of any ``wrn-d-k`` with d = 6 · n + 4, listed or not; None for another name.

    >>> by_name("wrn-100-2").about
    'WRN-100-2 for CIFAR-10 (Zagoruyko and Komodakis 2016)'
    """
    match = re.fullmatch(r"wrn-(\d{2,3})-(\d{1,2})", name)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    return _entry(depth, width) if depth % 6 == 4 and width else None


ENTRIES: dict[str, Entry] = {f"wrn-{depth}-{width}": _entry(depth, width) for depth, width in _USUAL}
