"""VGG with batch normalisation for CIFAR: the stacks of 3 × 3 convolutions, then one linear layer.

Columns A, B, D and E of table 1 in Simonyan and Zisserman (ICLR 2015). On 32 × 32 pixels five poolings leave a single
position, so the paper's three linear layers shrink to one. The names are those of kuangliu's ``pytorch-cifar``.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES
from sp_core.zoo.entry import Entry

_WIDTHS = (64, 128, 256, 512, 512)
# Convolutions before each of the five poolings.
_COLUMNS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class CifarVGG(nn.Module):
    """``depth`` 11, 13, 16 or 19; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 16, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, convolutions in zip(_WIDTHS, _COLUMNS[depth], strict=True):
            for _ in range(convolutions):
                conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*layers)  # [n, 512, 1, 1]
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        return self.classifier(self.features(x).mean((2, 3)))


def _make(depth: int, classes: int = 10) -> nn.Module:
    return CifarVGG(depth, classes)


def _entry(depth: int) -> Entry:
    last = 3 * sum(_COLUMNS[depth]) + 4 - 3  # the index of the last convolution: 3 layers each, 4 poolings before it
    return Entry(
        make=partial(_make, depth),
        input_size=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        classes=CIFAR10_CLASSES,
        about=f"VGG-{depth} with batch normalisation for CIFAR-10 (Simonyan and Zisserman 2015)",
        marks=frozenset({"features.0.weight", f"features.{last}.weight", "classifier.weight"}),
        caveat="Mean and std are guessed: those that pytorch-cifar uses on CIFAR-10; the file does not say.",
    )


ENTRIES: dict[str, Entry] = {f"cifar-vgg{depth}-bn": _entry(depth) for depth in _COLUMNS}
