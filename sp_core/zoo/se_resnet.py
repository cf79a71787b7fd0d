"""SE-ResNet: each block weighs its channels by a number that it computes from the whole map.

Hu, Shen and Sun, "Squeeze-and-excitation networks", CVPR 2018, figure 3 and section 3: s = σ(W₂ ReLU(W₁ mean(u))) with
C / 16 numbers between, multiplied into the residual branch before it is added. The bottlenecks are torchvision's
(stride on the 3 × 3 convolution), and so are the names of their weights.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class SqueezeExcite(nn.Module):
    """The mean of each map, two linear layers, a sigmoid: one factor a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels // 16), nn.Linear(channels // 16, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` to the same, each channel times its factor."""
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 and a skip, named as in torchvision; ``excite``: with squeeze and excitation."""

    def __init__(self, channels_in: int, width: int, stride: int = 1, excite: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.se = SqueezeExcite(4 * width) if excite else nn.Identity()
        self.downsample: nn.Module | None = None
        if channels_in != 4 * width:
            conv = nn.Conv2d(channels_in, 4 * width, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, 4 · width, h / stride, w / stride]``."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.se(self.bn3(self.conv3(x))) + skip)


class SEResNet(nn.Module):
    """``depth`` 50, 101 or 152; normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 50, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)  # [n, 64, 56, 56]
        channels = 64
        for stage, blocks in enumerate(_BLOCKS[depth]):
            width, layers = 64 * 2**stage, []
            for index in range(blocks):
                layers.append(Bottleneck(channels, width, 2 if stage > 0 and index == 0 else 1, excite=True))
                channels = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 32 pixels) to logits ``[n, classes]``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def _make(depth: int, classes: int = 1000) -> nn.Module:
    return SEResNet(depth, classes)


ENTRIES: dict[str, Entry] = {
    f"se-resnet{depth}": untrained(
        partial(_make, depth),
        (3, 224, 224),
        f"SE-ResNet-{depth} (Hu et al. 2018)",
        {"layer1.0.se.fc1.weight", f"layer3.{blocks[2] - 1}.se.fc2.weight", "fc.weight"},
    )
    for depth, blocks in _BLOCKS.items()
}
