"""ResNet-18 and 34 for ImageNet with 1, 1.5, 2 and 3 times the channels.

Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, section 3.3. Only the stages are widened: the stem keeps
its 64 channels. The columns of the paper's table (and of the lecture) are headed 1, 2, 3 and 4, but their parameters
(11.7, 25.9, 45.6 and 101.8 million for 18 layers) are those of widths 1, 1.5, 2 and 3. ``wrn-imagenet-18-1`` is
torchvision's ``resnet18`` under other names of weights; WRN-50-2 is torchvision's ``wide_resnet50_2``.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained
from sp_core.zoo.textures import BasicBlock

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class WideImageNet(nn.Module):
    """``depth`` 18 or 34; normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 18, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool1 = nn.MaxPool2d(3, 2, padding=1)  # [n, 64, 56, 56]
        channels = 64
        for group, blocks in enumerate(_BLOCKS[depth]):
            wide, layers = int(64 * 2**group * width), []
            for index in range(blocks):
                layers.append(BasicBlock(channels, wide, 2 if group > 0 and index == 0 else 1))
                channels = wide
            self.add_module(f"group{group}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 32 pixels) to logits ``[n, classes]``."""
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        for group in range(4):
            x = self.get_submodule(f"group{group}")(x)
        return self.fc(x.mean((2, 3)))


def _make(depth: int, width: float, classes: int = 1000) -> nn.Module:
    return WideImageNet(depth, width, classes)


def _entry(depth: int, width: float) -> Entry:
    return untrained(
        partial(_make, depth, width),
        (3, 224, 224),
        f"WRN-{depth} for ImageNet with {width:g} times the channels (Zagoruyko and Komodakis 2016)",
        {f"group2.{_BLOCKS[depth][2] - 1}.conv2.weight", f"group3.{_BLOCKS[depth][3] - 1}.bn2.weight", "bn1.weight"},
    )


ENTRIES: dict[str, Entry] = {
    f"wrn-imagenet-{depth}-{width:g}": _entry(depth, width)
    for depth, widths in ((18, (1, 1.5, 2, 3)), (34, (1, 1.5, 2)))
    for width in widths
}
