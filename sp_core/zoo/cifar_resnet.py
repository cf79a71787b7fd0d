"""ResNet for CIFAR-10: 20 to 110 layers, three stages of 16, 32 and 64 channels (He et al., CVPR 2016, section 4.2).

Names of the weights are those of the checkpoints most people have (``layer1.0.conv1``, ``linear``). The paper's own
skip across a change of width is option A: every other pixel, and zeros for the new channels; it has no weights. Option
B is a 1 × 1 convolution. ``-noshort`` has no skips at all: the networks beside which Li et al., "Visualizing the loss
landscape of neural nets" (NeurIPS 2018), put the residual ones.
"""

from __future__ import annotations

import re
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _Pad(nn.Module):
    """Option A: every other pixel, then ``extra`` channels of zeros on either side."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` to ``[n, c + 2 · extra, h / 2, w / 2]``."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


class CifarBlock(nn.Module):
    """Two 3 × 3 convolutions and a skip of ``option`` A or B, or ``"none"``."""

    def __init__(self, channels_in: int, channels: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = None if option == "none" else nn.Sequential()
        if stride != 1 and option == "A":
            self.shortcut = _Pad((channels - channels_in) // 2)
        elif stride != 1 and option == "B":
            projection = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out if self.shortcut is None else out + self.shortcut(x))


class CifarResNet(nn.Module):
    """``depth`` = 6 · blocks + 2 layers; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 20, option: str = "A", classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1, option)
        self.layer2 = self._stage(16, 32, blocks, 2, option)
        self.layer3 = self._stage(32, 64, blocks, 2, option)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int, option: str) -> nn.Sequential:
        first = CifarBlock(channels_in, channels, stride, option)
        return nn.Sequential(first, *(CifarBlock(channels, channels, 1, option) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = F.relu(self.bn1(self.conv1(x)))  # [n, 16, h, w]
        x = self.layer3(self.layer2(self.layer1(x)))  # [n, 64, h / 4, w / 4]
        return self.linear(x.mean((2, 3)))


def _make(depth: int, option: str, classes: int = 10) -> nn.Module:
    return CifarResNet(depth, option, classes)


_WORDS = {"A": "option A skips", "B": "option B skips", "none": "without skips"}
_CAVEAT = "Skips of option A have no weights: the file does not show whether it has them or none."


def _entry(depth: int, option: str) -> Entry:
    # Mean and standard deviation are ImageNet's, as in the widespread checkpoints; CIFAR's own differ by little.
    return Entry(
        make=partial(_make, depth, option),
        input_size=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        classes=CIFAR10_CLASSES,
        about=f"ResNet-{depth} for CIFAR-10, {_WORDS[option]} (He et al. 2016, section 4.2)",
        marks=frozenset({f"layer3.{(depth - 2) // 6 - 1}.conv2.weight", "linear.weight"}),
        caveat=_CAVEAT if option == "none" else "",
    )


def by_name(name: str) -> Entry | None:
    """The entry of any depth of 6 · n + 2 layers up to the paper's 1202, listed or not; None for another name.

    >>> by_name("cifar-resnet1202").about
    'ResNet-1202 for CIFAR-10, option A skips (He et al. 2016, section 4.2)'
    """
    match = re.fullmatch(r"cifar-resnet(\d{1,4})(b|-noshort|)", name)
    depth = int(match[1]) if match else 0
    if match is None or depth % 6 != 2 or not 8 <= depth <= 1202:
        return None
    return _entry(depth, {"": "A", "b": "B", "-noshort": "none"}[match[2]])


ENTRIES: dict[str, Entry] = {f"cifar-resnet{depth}": _entry(depth, "A") for depth in (20, 32, 44, 56, 110)} | {
    f"cifar-resnet{depth}b": _entry(depth, "B") for depth in (20, 32, 44, 56, 110)
}
ENTRIES |= {f"cifar-resnet{depth}-noshort": _entry(depth, "none") for depth in (20, 56, 110)}
