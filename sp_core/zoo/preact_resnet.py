"""Pre-activation ResNet: BatchNorm and ReLU before each convolution, so that the skips carry everything on unchanged.

He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", ECCV 2016. For CIFAR: ``preact-resnet110`` of
basic blocks (6 · n + 2 layers), ``preact-resnet164`` and ``preact-resnet1001`` of bottlenecks (9 · n + 2), as in
github.com/KaimingHe/resnet-1k-layers; for ImageNet ``preact-resnet200``. A block that changes the width normalises
once, for both of its paths; a last BatchNorm and ReLU stand before the pooling. The published 10.2 million parameters
of 1001 layers leave BatchNorm out (``convention="ioannou"``); with it they are 10,327,706.
"""

from __future__ import annotations

import re
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class PreAct(nn.Module):
    """BatchNorm, ReLU, convolution for each of ``kernels``; the skip leaves after the first ReLU where widths change.

    ``stride`` is that of the convolution number ``strided``.
    """

    def __init__(self, channels_in: int, widths: tuple[int, ...], kernels: tuple[int, ...], stride: int, strided: int):
        super().__init__()
        self.depth = len(widths)
        channels = channels_in
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels))
            conv = nn.Conv2d(
                channels, width, kernel, stride=stride if i == strided else 1, padding=kernel // 2, bias=False
            )
            self.add_module(f"conv{i + 1}", conv)
            channels = width
        self.projection: nn.Module | None = None
        if channels_in != channels or stride != 1:
            self.projection = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.get_submodule("bn1")(x))
        skip = x if self.projection is None else self.projection(out)
        out = self.get_submodule("conv1")(out)
        for i in range(2, self.depth + 1):
            out = self.get_submodule(f"conv{i}")(F.relu(self.get_submodule(f"bn{i}")(out)))
        return out + skip


def _stages(net: nn.Module, blocks: tuple[int, ...], inner: tuple[int, ...], expansion: int, strided: int) -> int:
    """Add ``stage1`` … to ``net``, which gives 16 or 64 channels to the first; the channels that come out."""
    channels = inner[0] if expansion == 1 or len(blocks) == 4 else 16
    for stage, (count, width) in enumerate(zip(blocks, inner, strict=True)):
        layers = []
        widths = (width, width) if expansion == 1 else (width, width, expansion * width)
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        for index in range(count):
            layers.append(PreAct(channels, widths, kernels, 2 if stage > 0 and index == 0 else 1, strided))
            channels = widths[-1]
        net.add_module(f"stage{stage + 1}", nn.Sequential(*layers))
    return channels


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PreActResNet(nn.Module):
    """For CIFAR; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 164, bottleneck: bool = True, classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // (9 if bottleneck else 6)
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        channels = _stages(self, (blocks,) * 3, (16, 32, 64), 4 if bottleneck else 1, 0)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = self.conv1(x)
        for stage in range(1, 4):
            x = self.get_submodule(f"stage{stage}")(x)
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class PreActImageNet(nn.Module):
    """200 layers for ImageNet; normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool1 = nn.MaxPool2d(3, 2, padding=1)  # [n, 64, 56, 56]
        channels = _stages(self, (3, 24, 36, 3), (64, 128, 256, 512), 4, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 32 pixels) to logits ``[n, classes]``."""
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"stage{stage}")(x)
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


def _make(depth: int, bottleneck: bool, classes: int = 10) -> nn.Module:
    return PreActResNet(depth, bottleneck, classes)


def _entry(depth: int, bottleneck: bool) -> Entry:
    blocks = (depth - 2) // (9 if bottleneck else 6)
    kind = "bottlenecks" if bottleneck else "basic blocks"
    return untrained(
        partial(_make, depth, bottleneck),
        (3, 32, 32),
        f"Pre-activation ResNet-{depth} of {kind} for CIFAR (He et al., ECCV 2016)",
        {f"stage3.{blocks - 1}.conv{3 if bottleneck else 2}.weight", "stage1.0.bn1.weight", "fc.weight"},
    )


def by_name(name: str) -> Entry | None:
    """The entry of any CIFAR depth of 9 · n + 2 (bottlenecks) or 6 · n + 2 layers; None for another name.

    >>> by_name("preact-resnet56").about
    'Pre-activation ResNet-56 of bottlenecks for CIFAR (He et al., ECCV 2016)'
    """
    match = re.fullmatch(r"preact-resnet(\d{2,4})", name)
    depth = int(match[1]) if match else 0
    if not 11 <= depth <= 1202 or (depth % 9 != 2 and depth % 6 != 2):
        return None
    return _entry(depth, depth % 9 == 2 and depth != 110)


# 110 = 9 · 12 + 2 = 6 · 18 + 2; the paper's has basic blocks.
ENTRIES: dict[str, Entry] = {
    "preact-resnet110": _entry(110, False),
    "preact-resnet164": _entry(164, True),
    "preact-resnet1001": _entry(1001, True),
    "preact-resnet200": untrained(
        PreActImageNet,
        (3, 224, 224),
        "Pre-activation ResNet-200 for ImageNet (He et al., ECCV 2016)",
        {"stage2.23.conv3.weight", "stage3.35.conv3.weight", "stage4.2.conv3.weight", "fc.weight"},
    ),
}
