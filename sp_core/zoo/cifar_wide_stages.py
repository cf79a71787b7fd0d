"""ImageNet's ResNets on CIFAR: four stages of 64 to 512 channels behind a 3 × 3 stem without pooling.

Widespread since kuangliu's ``pytorch-cifar`` (github.com/kuangliu/pytorch-cifar), whose names of weights these are:
``shortcut.0``, ``shortcut.1``, ``linear``. Not the narrow ResNet-20 to 110 of He et al., which are in ``cifar_resnet``.
``cifar-preact-…`` has the blocks of "Identity mappings in deep residual networks" (He et al., ECCV 2016): BatchNorm and
ReLU before each convolution, here without the paper's last BatchNorm, as in those checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES, CifarBlock
from sp_core.zoo.entry import Entry

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, bias=False)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 and a skip (He et al., CVPR 2016, figure 5); ``channels`` is 4 · ``width``."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != 4 * width:
            self.shortcut = nn.Sequential(_conv(channels_in, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3 × 3, twice; a convolution in the skip sees what the first ReLU gives."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = _conv(channels_in, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != width:
            self.shortcut = nn.Sequential(_conv(channels_in, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, width, h / stride, w / stride]``."""
        out = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + skip


class PreActBottleneck(nn.Module):
    """BatchNorm, ReLU, convolution, three times; ``channels`` is 4 · ``width``."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = _conv(channels_in, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != 4 * width:
            self.shortcut = nn.Sequential(_conv(channels_in, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return self.conv3(F.relu(self.bn3(out))) + skip


class CifarWideStages(nn.Module):
    """``depth`` 18, 34, 50, 101 or 152; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``.

    ``before``: BatchNorm and ReLU stand before each convolution.
    """

    def __init__(self, depth: int = 18, before: bool = False, classes: int = 10) -> None:
        super().__init__()
        make: Callable[[int, int, int], nn.Module]
        if depth < 50:
            make, expansion = (PreActBlock if before else partial(CifarBlock, option="B")), 1
        else:
            make, expansion = (PreActBottleneck if before else Bottleneck), 4
        self.conv1 = _conv(3, 64, 3)
        self.bn1 = None if before else nn.BatchNorm2d(64)
        stages, channels = [], 64
        for stage, blocks in enumerate(_DEPTHS[depth]):
            layers, width = [], 64 * 2**stage
            for index in range(blocks):
                layers.append(make(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = expansion * width
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 8 pixels) to logits ``[n, classes]``."""
        x = self.conv1(x)  # [n, 64, h, w]
        x = x if self.bn1 is None else F.relu(self.bn1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [n, 512 or 2048, h / 8, w / 8]
        return self.linear(x.mean((2, 3)))


def _make(depth: int, before: bool, classes: int = 10) -> nn.Module:
    return CifarWideStages(depth, before, classes)


def _entry(depth: int, before: bool) -> Entry:
    paper = "ECCV 2016, BatchNorm and ReLU first" if before else "CVPR 2016"
    last = [f"layer{stage}.{blocks - 1}.conv2.weight" for stage, blocks in enumerate(_DEPTHS[depth], 1)]
    return Entry(
        make=partial(_make, depth, before),
        input_size=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        classes=CIFAR10_CLASSES,
        about=f"ResNet-{depth} with ImageNet's widths and a 3 × 3 stem for CIFAR-10 (He et al., {paper})",
        marks=frozenset([*last, "linear.weight", *(() if before else ("bn1.weight",))]),
        caveat="Mean and std are guessed: those that pytorch-cifar uses on CIFAR-10; the file does not say.",
    )


ENTRIES: dict[str, Entry] = {f"cifar-resnet{depth}": _entry(depth, False) for depth in _DEPTHS} | {
    f"cifar-preact-resnet{depth}": _entry(depth, True) for depth in _DEPTHS
}
