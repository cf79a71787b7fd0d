"""Three small classics for 64 × 64 textures: AlexNet, VGG and ResNet, each as in its paper but narrower.

They are small enough to be bundled (under 4 MB) and to be trained on two CPU cores in well under an hour, and large
enough for their first layers to show what first layers show: oriented edges, gratings and colour opponents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.datasets.textures import CLASSES
from sp_core.zoo.entry import Entry


def _initialise(net: nn.Module, first: nn.Module) -> None:
    """He's initialisation ("Delving deep into rectifiers", 2015), but the first layer a twentieth as large.

    What is left of the random start is what makes a filter look noisy; what is learned soon outgrows a small start.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert isinstance(first, nn.Conv2d), "the first layer is a convolution"
    with torch.no_grad():
        first.weight.mul_(0.05)


class TexturesAlexNet(nn.Module):
    """AlexNet (Krizhevsky, Sutskever and Hinton, NeurIPS 2012) for 64 × 64 pixels.

    The first layer keeps the paper's 11 × 11 filters, with stride 2 instead of 4 because the image is smaller.
    """

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=2, padding=2),  # [n, 64, 29, 29]
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [n, 64, 14, 14]
            nn.Conv2d(64, 80, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [n, 80, 6, 6]
            nn.Conv2d(80, 128, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 128, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(128 * 2 * 2, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, classes),
        )
        _initialise(self, self.features[0])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 27 pixels up) to logits ``[n, classes]``."""
        x = self.avgpool(self.features(x))  # [n, 128, 2, 2]
        return self.classifier(torch.flatten(x, 1))


class TexturesVGG(nn.Module):
    """VGG, column A of its table 1 (Simonyan and Zisserman, ICLR 2015), narrower: stacks of 3 × 3 convolutions."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (32, "pool", 48, "pool", 80, 80, "pool", 128, 128, "pool"):
            if width == "pool":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                layers += [nn.Conv2d(channels, int(width), kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                channels = int(width)
        self.features = nn.Sequential(*layers)  # [n, 128, 4, 4]
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(channels, classes)
        _initialise(self, self.features[0])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 16 pixels up) to logits ``[n, classes]``."""
        x = self.avgpool(self.features(x))  # [n, 128, 1, 1]
        return self.classifier(torch.flatten(x, 1))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a skip (He et al., "Deep residual learning", CVPR 2016, figure 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + skip)


class TexturesResNet(nn.Module):
    """ResNet with batch normalisation: a 7 × 7 stem and three stages of two blocks.

    ReLU is a function here, not a module, as in many networks found in the wild.
    """

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=7, stride=2, padding=3, bias=False)  # [n, 32, 32, 32]
        self.bn1 = nn.BatchNorm2d(32)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)  # [n, 32, 16, 16]
        self.layer1 = nn.Sequential(BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer2 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1))
        self.layer3 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(128, classes)
        _initialise(self, self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))  # [n, 128, 4, 4]
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _entry(make: Callable[..., nn.Module], about: str) -> Entry:
    """Mid-grey, and about the spread of a texture's pixels: round numbers, the same for all three."""
    return Entry(make, (3, 64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), classes=CLASSES, about=about)


ENTRIES: dict[str, Entry] = {
    "textures-alexnet": _entry(TexturesAlexNet, "AlexNet (Krizhevsky 2012) for 64 × 64, 11 × 11 first layer"),
    "textures-vgg": _entry(TexturesVGG, "VGG-A (Simonyan and Zisserman 2015) for 64 × 64, 3 × 3 filters only"),
    "textures-resnet": _entry(TexturesResNet, "ResNet (He 2016) for 64 × 64, batch norm and functional ReLU"),
}
