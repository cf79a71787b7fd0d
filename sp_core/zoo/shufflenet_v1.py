"""ShuffleNet v1: 1 × 1 convolutions in filter groups, and a shuffle of the channels so that the groups do mix.

Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices", CVPR
2018, in the sizes and with the names of weights that its authors released (github.com/megvii-model/ShuffleNet-Series).
``shufflenet-v1-g3-0.5`` has three groups and the smallest width. Their code shuffles by the inverse of the permutation
in the paper; here it is the code's, so that their weights mean the same. Version 2 is torchvision's
``shufflenet_v2_x1_0``.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

# Channels of the stem and of the three stages, by groups and width: more groups afford more channels.
_WIDTHS = {
    3: {0.5: (12, 120, 240, 480), 1: (24, 240, 480, 960), 1.5: (24, 360, 720, 1440), 2: (48, 480, 960, 1920)},
    8: {0.5: (16, 192, 384, 768), 1: (24, 384, 768, 1536), 1.5: (24, 576, 1152, 2304), 2: (48, 768, 1536, 3072)},
}
_REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """1 × 1 in groups, shuffle, 3 × 3 depthwise, 1 × 1 in groups; added to its input, or put behind it at stride 2.

    In the released code the shuffle comes after the depthwise convolution, which gives the same set of functions.
    """

    def __init__(self, channels_in: int, channels: int, groups: int, first: bool, stride: int) -> None:
        super().__init__()
        middle, out = channels // 4, channels - channels_in if stride == 2 else channels
        self.groups = groups
        self.branch_main_1 = nn.Sequential(
            # The first layer of all has too few input channels for groups.
            nn.Conv2d(channels_in, middle, kernel_size=1, groups=1 if first else groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
        )
        self.branch_main_2 = nn.Sequential(
            nn.Conv2d(middle, out, kernel_size=1, groups=groups, bias=False), nn.BatchNorm2d(out)
        )
        self.branch_proj = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        out = self.branch_main_1(x)
        n, c, h, w = out.shape
        out = out.view(n, c // self.groups, self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        out = self.branch_main_2(out)
        if self.branch_proj is None:
            return F.relu(out + x)
        return torch.cat([self.branch_proj(x), F.relu(out)], 1)


class ShuffleNetV1(nn.Module):
    """``groups`` 3 or 8 at one of four widths; normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, groups: int = 3, width: float = 1, classes: int = 1000) -> None:
        super().__init__()
        channels, *stages = _WIDTHS[groups][width]
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)  # [n, channels, 56, 56]
        self.features = nn.Sequential()
        for wide, repeats in zip(stages, _REPEATS, strict=True):
            for index in range(repeats):
                first = not len(self.features)
                self.features.append(ShuffleUnit(channels, wide, groups, first, 1 if index else 2))
                channels = wide
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(channels, classes, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        x = self.features(self.maxpool(self.first_conv(x)))
        return self.classifier(torch.flatten(self.globalpool(x), 1))


def _make(groups: int, width: float, classes: int = 1000) -> nn.Module:
    return ShuffleNetV1(groups, width, classes)


ENTRIES: dict[str, Entry] = {
    f"shufflenet-v1-g{groups}{'' if width == 1 else f'-{width:g}'}": untrained(
        partial(_make, groups, width),
        (3, 224, 224),
        f"ShuffleNet v1 with {groups} filter groups, width {width:g} (Zhang et al. 2018)",
        {"first_conv.0.weight", "features.0.branch_main_1.0.weight", "features.15.branch_main_2.0.weight"},
    )
    for groups, widths in _WIDTHS.items()
    for width in widths
}
