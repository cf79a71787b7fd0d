"""ResNet with root modules: the 3 × 3 convolutions of a bottleneck in filter groups, fewer the deeper the stage.

Ioannou, Robertson, Cipolla and Criminisi, "Deep roots", CVPR 2017, tables 3 and 4. ``resnet50-root8`` has 8, 4, 2 and 1
groups in its four stages; any depth of 50, 101, 152 or 200 layers and any power of two up to 64 is made by name.
``resnet50-caffe`` is the network it began from, He et al.'s own for Caffe (CVPR 2016): the stride is on the first 1 × 1
convolution, while torchvision's ``resnet50`` has it on the 3 × 3 one, and the first convolution has a bias (at 50
layers only). BatchNorm and Caffe's scale are one layer here; the paper's counts leave both out
(``convention="ioannou"``).

The paper's ResNet-200 table is miscounted: parameters by 2,045,952 (the last layer as 2048 + 1000 instead of
2048 × 1000), operations by a factor of about 400. What :func:`sp_core.complexity` says is right.
"""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


class CaffeBottleneck(nn.Module):
    """1 × 1 (with the stride), 3 × 3 in ``groups``, 1 × 1, and a skip; named as in Caffe's prototxt."""

    def __init__(self, channels_in: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.branch2a = nn.Conv2d(channels_in, width, kernel_size=1, stride=stride, bias=False)
        self.bn2a = nn.BatchNorm2d(width)
        self.branch2b = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=groups, bias=False)
        self.bn2b = nn.BatchNorm2d(width)
        self.branch2c = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn2c = nn.BatchNorm2d(4 * width)
        self.branch1: nn.Module | None = None
        self.bn1: nn.Module | None = None
        if channels_in != 4 * width:
            self.branch1 = nn.Conv2d(channels_in, 4 * width, kernel_size=1, stride=stride, bias=False)
            self.bn1 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, 4 · width, h / stride, w / stride]``."""
        skip = x if self.branch1 is None or self.bn1 is None else self.bn1(self.branch1(x))
        x = self.relu(self.bn2a(self.branch2a(x)))
        x = self.relu(self.bn2b(self.branch2b(x)))
        return self.relu(self.bn2c(self.branch2c(x)) + skip)


class CaffeResNet(nn.Module):
    """``depth`` layers with ``groups`` a stage; images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 50, groups: tuple[int, ...] = (1, 1, 1, 1), classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=depth == 50)
        self.bn_conv1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)  # [n, 64, 56, 56]
        channels = 64
        for stage, (blocks, g) in enumerate(zip(_BLOCKS[depth], groups, strict=True)):
            width, layers = 64 * 2**stage, []
            for index in range(blocks):
                layers.append(CaffeBottleneck(channels, width, 2 if stage > 0 and index == 0 else 1, g))
                channels = 4 * width
            self.add_module(f"res{stage + 2}", nn.Sequential(*layers))
        self.pool5 = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        x = self.pool1(self.relu(self.bn_conv1(self.conv1(x))))
        for stage in range(2, 6):
            x = self.get_submodule(f"res{stage}")(x)
        return self.fc(torch.flatten(self.pool5(x), 1))


def _make(depth: int, groups: tuple[int, ...], classes: int = 1000) -> nn.Module:
    return CaffeResNet(depth, groups, classes)


def _entry(depth: int, root: int) -> Entry:
    groups = tuple(max(root >> stage, 1) for stage in range(4))
    about = f"ResNet-{depth} with {', '.join(map(str, groups))} filter groups in its stages (Ioannou et al. 2017)"
    if root == 1:
        about = f"ResNet-{depth} as He et al. (2016) released it for Caffe: stride on the first 1 × 1"
    marks = {"bn_conv1.weight", f"res3.{_BLOCKS[depth][1] - 1}.branch2c.weight"}
    marks |= {f"res4.{_BLOCKS[depth][2] - 1}.branch2b.weight", "fc.weight"}
    return untrained(partial(_make, depth, groups), (3, 224, 224), about, marks)


def by_name(name: str) -> Entry | None:
    """The entry of any ``resnetD-rootG``, listed or not; None for another name.

    >>> entry = by_name("resnet152-root16")
    >>> entry.about
    'ResNet-152 with 16, 8, 4, 2 filter groups in its stages (Ioannou et al. 2017)'
    """
    match = re.fullmatch(r"resnet(50|101|152|200)-root(2|4|8|16|32|64)", name)
    return _entry(int(match[1]), int(match[2])) if match else None


ENTRIES: dict[str, Entry] = {f"resnet50-root{root}": _entry(50, root) for root in (2, 4, 8, 16, 32, 64)} | {
    f"resnet{depth}-caffe": _entry(depth, 1) for depth in (50, 101, 152, 200)
}
