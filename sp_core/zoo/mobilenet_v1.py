"""MobileNet v1: every 3 × 3 convolution split into one filter a channel (depthwise) and a 1 × 1 mixture of channels.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", arXiv 1704.04861,
2017, table 1. ``mobilenet-v1-0.5`` has half the channels everywhere (the paper's width multiplier). A depthwise
separable layer costs 1 / N + 1 / k² of a full one with N filters of k × k. Version 2 is torchvision's ``mobilenet_v2``.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

# Channels and stride of each separable layer.
_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def _followed(conv: nn.Conv2d) -> list[nn.Module]:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


class Separable(nn.Module):
    """3 × 3 depthwise, BatchNorm, ReLU; 1 × 1, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False)
        self.depthwise = nn.Sequential(*_followed(depthwise))
        self.pointwise = nn.Sequential(*_followed(nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.pointwise(self.depthwise(x))


class MobileNetV1(nn.Module):
    """``width`` times the paper's channels; normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv0 = nn.Sequential(*_followed(nn.Conv2d(3, channels, 3, 2, 1, bias=False)))
        for index, (wide, stride) in enumerate(_LAYERS, 1):
            self.add_module(f"separable{index}", Separable(channels, int(wide * width), stride))
            channels = int(wide * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        x = self.conv0(x)
        for index in range(1, len(_LAYERS) + 1):
            x = self.get_submodule(f"separable{index}")(x)
        return self.fc(torch.flatten(self.pool(x), 1))


def _make(width: float, classes: int = 1000) -> nn.Module:
    return MobileNetV1(width, classes)


ENTRIES: dict[str, Entry] = {
    f"mobilenet-v1{'' if width == 1 else f'-{width:g}'}": untrained(
        partial(_make, width),
        (3, 224, 224),
        f"MobileNet v1 with {width:g} of its channels (Howard et al. 2017)",
        {"conv0.0.weight", "separable13.pointwise.0.weight"},
    )
    for width in (1, 0.75, 0.5, 0.25)
}
