"""ResNeXt for CIFAR: a bottleneck whose 3 × 3 convolution has many filter groups (its *cardinality*).

Xie, Girshick, Dollár, Tu and He, "Aggregated residual transformations for deep neural networks", CVPR 2017, section
5.3, form C as in github.com/facebookresearch/ResNeXt. ``resnext29-8x64d`` has 8 groups of 64 channels in its first
stage. ImageNet's are torchvision's ``resnext50_32x4d``, ``resnext101_32x8d`` and ``resnext101_64x4d``.
"""

from __future__ import annotations

import re
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class AggregatedBlock(nn.Module):
    """1 × 1, 3 × 3 in ``groups``, 1 × 1 and a skip, with ``inner`` channels between and ``channels`` out of it."""

    def __init__(self, channels_in: int, inner: int, channels: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels_in, inner, kernel_size=1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_grouped = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn_grouped = nn.BatchNorm2d(inner)
        self.conv_expand = nn.Conv2d(inner, channels, kernel_size=1, bias=False)
        self.bn_expand = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn_reduce(self.conv_reduce(x)))
        out = F.relu(self.bn_grouped(self.conv_grouped(out)))
        return F.relu(self.bn_expand(self.conv_expand(out)) + self.shortcut(x))


class CifarResNeXt(nn.Module):
    """``depth`` = 9 · n + 2; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 29, cardinality: int = 8, base: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage in range(3):
            width, layers = 64 * 2**stage, []
            for index in range((depth - 2) // 9):
                stride, inner = (2 if stage > 0 and index == 0 else 1), width * base // 64 * cardinality
                layers.append(AggregatedBlock(channels, inner, 4 * width, cardinality, stride))
                channels = 4 * width
            self.add_module(f"stage{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 4):
            x = self.get_submodule(f"stage{stage}")(x)
        return self.fc(x.mean((2, 3)))


def _make(depth: int, cardinality: int, base: int, classes: int = 10) -> nn.Module:
    return CifarResNeXt(depth, cardinality, base, classes)


def by_name(name: str) -> Entry | None:
    """The entry of any ``resnextD-CxWd`` with D = 9 · n + 2, listed or not; None for another name.

    >>> by_name("resnext29-4x32d").about
    'ResNeXt-29, 4 groups of 32 channels, for CIFAR (Xie et al. 2017)'
    """
    match = re.fullmatch(r"resnext(\d{2,3})-(\d{1,3})x(\d{1,3})d", name)
    depth, cardinality, base = (int(part) for part in match.groups()) if match else (0, 0, 0)
    if depth % 9 != 2 or not cardinality or not base:
        return None
    return untrained(
        partial(_make, depth, cardinality, base),
        (3, 32, 32),
        f"ResNeXt-{depth}, {cardinality} groups of {base} channels, for CIFAR (Xie et al. 2017)",
        {f"stage3.{(depth - 2) // 9 - 1}.conv_grouped.weight", "fc.weight"},
    )


ENTRIES: dict[str, Entry] = {
    name: found for name in ("resnext29-8x64d", "resnext29-16x64d") if (found := by_name(name)) is not None
}
