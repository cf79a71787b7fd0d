"""ImageNet's networks on CIFAR as kuangliu's ``pytorch-cifar`` has them (github.com/kuangliu/pytorch-cifar).

The strides of the first layers are gone, so that 32 × 32 pixels last to the end; one linear layer follows the average.
GoogLeNet: Szegedy et al., CVPR 2015, with BatchNorm, and two 3 × 3 for each 5 × 5. DenseNet: Huang et al., CVPR 2017.
MobileNet: Howard et al., arXiv 1704.04861; version 2: Sandler et al., CVPR 2018. SENet: Hu et al., CVPR 2018. The names
of weights are the collection's own. Its ResNets are in ``cifar_wide_stages``, its VGGs in ``cifar_vgg``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES
from sp_core.zoo.cifar_wide_stages import PreActBlock
from sp_core.zoo.entry import Entry


def _conv(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class Separable(nn.Module):
    """3 × 3 depthwise, then 1 × 1, each with BatchNorm and ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels_in, 3, stride, channels_in)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv2 = _conv(channels_in, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class MobileNet(nn.Module):
    """13 separable layers; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        widths = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
        strided = {1, 3, 5, 11}
        self.conv1 = _conv(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        layers = [Separable(widths[i], widths[i + 1], 2 if i in strided else 1) for i in range(13)]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        return self.linear(_mean(self.layers(F.relu(self.bn1(self.conv1(x))))))


class Inverted(nn.Module):
    """1 × 1 to ``expansion`` times the channels, 3 × 3 depthwise, 1 × 1; a skip wherever the stride is 1."""

    def __init__(self, channels_in: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * channels_in
        self.conv1 = _conv(channels_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, 3, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv(inner, channels, 1)
        self.bn3 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = nn.Sequential() if stride == 1 else None
        if stride == 1 and channels_in != channels:
            self.shortcut = nn.Sequential(_conv(channels_in, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return out if self.shortcut is None else out + self.shortcut(x)


class MobileNetV2(nn.Module):
    """17 inverted residual blocks; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        # Expansion, channels, blocks, stride: table 2 of the paper, with the first two strides 1.
        table = (
            (1, 16, 1, 1),
            (6, 24, 2, 1),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        self.conv1 = _conv(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        layers, channels_in = [], 32
        for expansion, channels, blocks, stride in table:
            for index in range(blocks):
                layers.append(Inverted(channels_in, channels, expansion, stride if index == 0 else 1))
                channels_in = channels
        self.layers = nn.Sequential(*layers)
        self.conv2 = _conv(320, 1280, 1)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(_mean(F.relu(self.bn2(self.conv2(x)))))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1 × 1, BatchNorm, ReLU, 3 × 3; the new channels are put before the old ones."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = _conv(channels, 4 * growth, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = _conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, growth + channels, h, w]``."""
        out = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([self.conv2(F.relu(self.bn2(out))), x], 1)


class Transition(nn.Module):
    """Half the channels, half the image."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv = _conv(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / 2, w / 2]``."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """Four dense blocks; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, blocks: tuple[int, ...] = (6, 12, 24, 16), growth: int = 12, classes: int = 10) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv1 = _conv(3, channels, 3)
        parts: list[nn.Module] = []
        for number, layers in enumerate(blocks, 1):
            dense = nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(layers)))
            channels += layers * growth
            self.add_module(f"dense{number}", dense)
            parts.append(dense)
            if number < len(blocks):
                shrink = Transition(channels, channels // 2)
                self.add_module(f"trans{number}", shrink)
                parts.append(shrink)
                channels //= 2
        self.depth = len(blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        x = self.conv1(x)
        for number in range(1, self.depth + 1):
            x = self.get_submodule(f"dense{number}")(x)
            if number < self.depth:
                x = self.get_submodule(f"trans{number}")(x)
        return self.linear(_mean(F.relu(self.bn(x))))


def _followed(*convs: nn.Conv2d) -> list[nn.Module]:
    return [part for conv in convs for part in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))]


class Inception(nn.Module):
    """1 × 1; 1 × 1 and 3 × 3; 1 × 1 and twice 3 × 3; 3 × 3 max pooling and 1 × 1: side by side."""

    def __init__(self, channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        conv = nn.Conv2d  # with a bias, although BatchNorm follows
        self.b1 = nn.Sequential(*_followed(conv(channels, one, 1)))
        self.b2 = nn.Sequential(*_followed(conv(channels, three[0], 1), conv(*three, 3, padding=1)))
        twice = (conv(channels, five[0], 1), conv(*five, 3, padding=1), conv(five[1], five[1], 3, padding=1))
        self.b3 = nn.Sequential(*_followed(*twice))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_followed(conv(channels, pooled, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, sum of the four, h, w]``."""
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


class GoogLeNet(nn.Module):
    """Nine Inception blocks; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.pre_layers = nn.Sequential(*_followed(nn.Conv2d(3, 192, 3, padding=1)))
        # Table 1 of the paper.
        self.a3 = Inception(192, 64, (96, 128), (16, 32), 32)
        self.b3 = Inception(256, 128, (128, 192), (32, 96), 64)
        self.a4 = Inception(480, 192, (96, 208), (16, 48), 64)
        self.b4 = Inception(512, 160, (112, 224), (24, 64), 64)
        self.c4 = Inception(512, 128, (128, 256), (24, 64), 64)
        self.d4 = Inception(512, 112, (144, 288), (32, 64), 64)
        self.e4 = Inception(528, 256, (160, 320), (32, 128), 128)
        self.a5 = Inception(832, 256, (160, 320), (32, 128), 128)
        self.b5 = Inception(832, 384, (192, 384), (48, 128), 128)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        x = self.maxpool(self.b3(self.a3(self.pre_layers(x))))
        x = self.maxpool(self.e4(self.d4(self.c4(self.b4(self.a4(x))))))
        return self.linear(_mean(self.b5(self.a5(x))))


class Excited(PreActBlock):
    """A pre-activation block whose residual is weighted channel by channel (squeeze and excitation, reduction 16)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__(channels_in, width, stride)
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, width, h / stride, w / stride]``."""
        out = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        squeezed = F.relu(self.fc1(out.mean((2, 3), keepdim=True)))
        return out * torch.sigmoid(self.fc2(squeezed)) + skip


class SENet(nn.Module):
    """SENet-18; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        stages, channels = [], 64
        for width in (64, 128, 256, 512):
            stages.append(nn.Sequential(Excited(channels, width, 1 if width == 64 else 2), Excited(width, width, 1)))
            channels = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(_mean(self.layer4(self.layer3(self.layer2(self.layer1(x))))))


def _dense(blocks: tuple[int, ...], growth: int, classes: int = 10) -> nn.Module:
    return DenseNet(blocks, growth, classes)


def _entry(make: Callable[..., nn.Module], about: str, marks: set[str]) -> Entry:
    return Entry(
        make=make,
        input_size=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        classes=CIFAR10_CLASSES,
        about=f"{about} for CIFAR-10, as in kuangliu's pytorch-cifar",
        marks=frozenset({*marks, "linear.weight"}),
        caveat="Mean and std are guessed: those that pytorch-cifar uses on CIFAR-10; the file does not say.",
    )


_DENSE = {"": ((6, 12, 24, 16), 12), "121": ((6, 12, 24, 16), 32), "161": ((6, 12, 36, 24), 48)}
_DENSE |= {"169": ((6, 12, 32, 32), 32), "201": ((6, 12, 48, 32), 32)}
ENTRIES: dict[str, Entry] = {
    f"cifar-densenet{name}": _entry(
        partial(_dense, blocks, growth),
        f"DenseNet{'-' * bool(name)}{name} with growth {growth} (Huang et al. 2017)",
        {
            "conv1.weight",
            "trans3.conv.weight",
            f"dense4.{blocks[3] - 1}.conv2.weight",
            f"dense3.{blocks[2] - 1}.bn1.bias",
        },
    )
    for name, (blocks, growth) in _DENSE.items()
} | {
    "cifar-googlenet": _entry(GoogLeNet, "GoogLeNet (Szegedy et al. 2015)", {"pre_layers.0.weight", "b5.b4.1.weight"}),
    "cifar-mobilenet": _entry(MobileNet, "MobileNet (Howard et al. 2017)", {"conv1.weight", "layers.12.conv2.weight"}),
    "cifar-mobilenet-v2": _entry(
        MobileNetV2, "MobileNetV2 (Sandler et al. 2018)", {"conv2.weight", "layers.16.conv3.weight"}
    ),
    "cifar-senet18": _entry(SENet, "SENet-18 (Hu et al. 2018)", {"layer4.1.fc2.weight", "layer1.0.bn1.weight"}),
}
