"""DenseNet for CIFAR, and the deepest one for ImageNet: every layer sees the maps of all before it.

Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1 and section 4.
``densenet-100-12`` has 100 layers and a growth of 12 channels a layer; ``densenet-bc-100-12`` has bottlenecks (B) and
halves the channels between its blocks (C). ImageNet's are torchvision's ``densenet121`` to ``densenet201``, and
``densenet264``, whose blocks of 6, 12, 64 and 48 layers make 265 by the paper's own rule of counting.
"""

from __future__ import annotations

import re
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class DenseUnit(nn.Module):
    """BatchNorm, ReLU, 3 × 3, its ``growth`` maps put behind the others; a bottleneck is 1 × 1 to 4 · growth first."""

    def __init__(self, channels: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.reduce: nn.Module | None = None
        if bottleneck:
            self.reduce = nn.Conv2d(channels, 4 * growth, kernel_size=1, bias=False)
            self.bn2 = nn.BatchNorm2d(4 * growth)
            channels = 4 * growth
        self.grow = nn.Conv2d(channels, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, channels + growth, h, w]``."""
        out = F.relu(self.bn1(x))
        if self.reduce is not None:
            out = F.relu(self.bn2(self.reduce(out)))
        return torch.cat([x, self.grow(out)], 1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1 × 1, then half the image."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / 2, w / 2]``."""
        return self.pool(self.conv(F.relu(self.bn(x))))


class CifarDenseNet(nn.Module):
    """``depth`` layers, ``growth`` channels each; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 40, growth: int = 12, compact: bool = False, classes: int = 10) -> None:
        super().__init__()
        units = (depth - 4) // (6 if compact else 3)
        channels = 2 * growth if compact else 16
        self.conv1 = nn.Conv2d(3, channels, kernel_size=3, padding=1, bias=False)
        for block in range(1, 4):
            layers = nn.Sequential()
            for _ in range(units):
                layers.append(DenseUnit(channels, growth, compact))
                channels += growth
            self.add_module(f"block{block}", layers)
            if block < 3:
                out = channels // 2 if compact else channels
                self.add_module(f"transition{block}", Transition(channels, out))
                channels = out
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = self.conv1(x)
        for name in ("block1", "transition1", "block2", "transition2", "block3"):
            x = self.get_submodule(name)(x)
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


def _make(depth: int, growth: int, compact: bool, classes: int = 10) -> nn.Module:
    return CifarDenseNet(depth, growth, compact, classes)


def _make_264(classes: int = 1000) -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64, num_classes=classes)


def by_name(name: str) -> Entry | None:
    """The entry of any ``densenet-L-k`` (L = 3 · n + 4) or ``densenet-bc-L-k`` (L = 6 · n + 4); None for another name.

    >>> by_name("densenet-bc-40-48").about
    'DenseNet-BC with 40 layers and growth 48 for CIFAR (Huang et al. 2017)'
    """
    match = re.fullmatch(r"densenet-(bc-|)(\d{1,3})-(\d{1,2})", name)
    depth, growth = (int(match[2]), int(match[3])) if match else (0, 0)
    compact = bool(match and match[1])
    units = (depth - 4) // (6 if compact else 3)
    if units < 1 or growth < 1 or (depth - 4) % (6 if compact else 3):
        return None
    return untrained(
        partial(_make, depth, growth, compact),
        (3, 32, 32),
        f"DenseNet{'-BC' if compact else ''} with {depth} layers and growth {growth} for CIFAR (Huang et al. 2017)",
        {f"block3.{units - 1}.grow.weight", f"block3.0.{'reduce' if compact else 'bn1'}.weight", "fc.weight"},
    )


_LISTED = ("40-12", "100-12", "100-24", "bc-100-12", "bc-250-24", "bc-190-40")
ENTRIES: dict[str, Entry] = {
    f"densenet-{kind}": found for kind in _LISTED if (found := by_name(f"densenet-{kind}")) is not None
} | {
    "densenet264": untrained(
        _make_264,
        (3, 224, 224),
        "DenseNet-264 for ImageNet (Huang et al. 2017): torchvision's class with 6, 12, 64 and 48 layers",
        {"features.denseblock3.denselayer64.conv2.weight", "features.denseblock4.denselayer48.conv2.weight"},
    )
}
