"""ResNet and DenseNet of the UvA deep learning tutorials, trained on CIFAR-10 with Lightning.

Lippe, "UvA deep learning tutorials", tutorial 5 (Inception, ResNet and DenseNet); its checkpoints are public. ResNet:
He et al., CVPR 2016, section 4.2, with 1 × 1 convolutions for skips that halve the image. DenseNet: Huang et al., CVPR
2017, with growth 16, bottlenecks of 32 channels and compression 0.5. The tutorial leaves the activation to the reader;
ReLU is its choice, and the one in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES
from sp_core.zoo.entry import Entry


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a skip."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        stride = 1 if channels_in == channels else 2
        self.net = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.downsample = nn.Conv2d(channels_in, channels, kernel_size=1, stride=2) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + skip)


class UvAResNet(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels: 20 layers."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.input_net = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU())
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        self.blocks = nn.Sequential(*(ResidualBlock(widths[i], widths[i + 1]) for i in range(9)))
        self.output_net = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        return self.output_net(self.blocks(self.input_net(x)))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1 × 1, BatchNorm, ReLU, 3 × 3; the new channels are put before the old ones."""

    def __init__(self, channels: int, bottleneck: int, growth: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, bottleneck, kernel_size=1, bias=False),
            nn.BatchNorm2d(bottleneck),
            nn.ReLU(),
            nn.Conv2d(bottleneck, growth, kernel_size=3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, growth + channels, h, w]``."""
        return torch.cat([self.net(x), x], dim=1)


class DenseBlock(nn.Module):
    """Layers under the name ``block``."""

    def __init__(self, channels: int, layers: int, bottleneck: int, growth: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*(DenseLayer(channels + i * growth, bottleneck, growth) for i in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, channels + layers · growth, h, w]``."""
        return self.block(x)


class Transition(nn.Module):
    """Half the channels, half the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transition = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False),
            nn.AvgPool2d(kernel_size=2, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, channels / 2, h / 2, w / 2]``."""
        return self.transition(x)


class UvADenseNet(nn.Module):
    """Four dense blocks of six layers, growth 16, with transitions between."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        growth, bottleneck, layers, channels = 16, 32, 6, 32
        self.input_net = nn.Sequential(nn.Conv2d(3, channels, kernel_size=3, padding=1))
        blocks: list[nn.Module] = []
        for index in range(4):
            blocks.append(DenseBlock(channels, layers, bottleneck, growth))
            channels += layers * growth
            if index < 3:
                blocks.append(Transition(channels))
                channels //= 2
        self.blocks = nn.Sequential(*blocks)
        self.output_net = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(),
            nn.Linear(channels, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 8 pixels up) to logits ``[n, classes]``."""
        return self.output_net(self.blocks(self.input_net(x)))


def _entry(make: Callable[..., nn.Module], about: str, marks: set[str]) -> Entry:
    return Entry(
        make=make,
        input_size=(3, 32, 32),
        mean=(0.49139968, 0.48215841, 0.44653091),
        std=(0.24703223, 0.24348513, 0.26158784),
        classes=CIFAR10_CLASSES,
        about=f"{about}, as in the UvA deep learning tutorials",
        marks=frozenset({"input_net.0.weight", *marks}),
        caveat="ReLU and the tutorial's mean and std of CIFAR-10 are guessed: names and shapes do not show them.",
    )


ENTRIES: dict[str, Entry] = {
    "uva-cifar-resnet": _entry(
        UvAResNet, "ResNet-20 for CIFAR-10 (He et al. 2016)", {"blocks.8.net.4.weight", "output_net.2.weight"}
    ),
    "uva-cifar-densenet": _entry(
        UvADenseNet,
        "DenseNet with growth 16 for CIFAR-10 (Huang et al. 2017)",
        {"blocks.6.block.5.net.5.weight", "output_net.4.weight"},
    ),
}
