"""CondenseNet as it runs after training: learned filter groups that were turned into ordinary ones.

Huang, Liu, van der Maaten and Weinberger, "CondenseNet: an efficient DenseNet using learned group convolutions", CVPR
2018, with the names of weights of github.com/ShichenLiu/CondenseNet. In training each of the G groups of a 1 × 1 layer
drops the inputs whose weights are smallest, until it keeps 1 / C of them (C = G here). What is left is an ``index``
that picks and orders the inputs, an ordinary convolution in G groups, and a shuffle of its outputs. A fresh network has
the inputs in their own order. Half of the inputs of the last layer are dropped likewise. The growth doubles from stage
to stage; transitions only pool. The published FLOPs are those of ``convention="author"``.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class CondensedConv(nn.Module):
    """Pick inputs, BatchNorm, ReLU, 1 × 1 in ``groups``, shuffle."""

    index: Tensor

    def __init__(self, channels_in: int, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels_in)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels_in, channels, kernel_size=1, groups=groups, bias=False)
        self.register_buffer("index", torch.arange(channels_in))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h, w]``."""
        x = self.conv(self.relu(self.norm(torch.index_select(x, 1, self.index))))
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class CondensedLinear(nn.Module):
    """Pick half of the inputs, then a linear layer."""

    index: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features // 2, classes)
        self.register_buffer("index", torch.arange(features // 2))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, features]`` to ``[n, classes]``."""
        return self.linear(torch.index_select(x, 1, self.index))


class CondenseLayer(nn.Module):
    """A condensed 1 × 1 to 4 · growth, then 3 × 3 in groups to ``growth`` maps, put behind the others."""

    def __init__(self, channels: int, growth: int, groups: int) -> None:
        super().__init__()
        self.conv_1 = CondensedConv(channels, 4 * growth, groups)
        self.conv_2 = nn.Sequential()
        self.conv_2.add_module("norm", nn.BatchNorm2d(4 * growth))
        self.conv_2.add_module("relu", nn.ReLU(inplace=True))
        self.conv_2.add_module("conv", nn.Conv2d(4 * growth, growth, 3, padding=1, groups=groups, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels, h, w]`` to ``[n, channels + growth, h, w]``."""
        return torch.cat([x, self.conv_2(self.conv_1(x))], 1)


class CondenseNet(nn.Module):
    """``stages``: layers of each; ``growth``: their channels. Images ``[n, 3, h, w]`` to logits ``[n, classes]``."""

    def __init__(
        self, stages: tuple[int, ...], growth: tuple[int, ...], groups: int, stride: int, classes: int
    ) -> None:
        super().__init__()
        channels = 2 * growth[0]
        self.features = nn.Sequential()
        self.features.add_module("init_conv", nn.Conv2d(3, channels, 3, stride, 1, bias=False))
        for stage, (layers, grow) in enumerate(zip(stages, growth, strict=True), 1):
            block = nn.Sequential()
            for layer in range(1, layers + 1):
                block.add_module(f"denselayer_{layer}", CondenseLayer(channels, grow, groups))
                channels += grow
            self.features.add_module(f"denseblock_{stage}", block)
            if stage < len(stages):
                self.features.add_module(f"transition_{stage}", nn.AvgPool2d(2))
        self.features.add_module("norm_last", nn.BatchNorm2d(channels))
        self.features.add_module("relu_last", nn.ReLU(inplace=True))
        self.features.add_module("pool_last", nn.AdaptiveAvgPool2d(1))
        self.classifier = CondensedLinear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 32 pixels up) to logits ``[n, classes]``."""
        return self.classifier(torch.flatten(self.features(x), 1))


def _make_cifar(layers: int, classes: int = 10) -> nn.Module:
    return CondenseNet((layers,) * 3, (8, 16, 32), 4, 1, classes)


def _make_imagenet(groups: int, classes: int = 1000) -> nn.Module:
    return CondenseNet((4, 6, 8, 10, 8), (8, 16, 32, 64, 128), groups, 2, classes)


def _marks(last: str) -> set[str]:
    return {"features.init_conv.weight", f"features.{last}.conv_2.conv.weight", "classifier.index"}


ENTRIES: dict[str, Entry] = {
    f"condensenet-cifar-{6 * layers + 2}": untrained(
        partial(_make_cifar, layers),
        (3, 32, 32),
        f"CondenseNet-{6 * layers + 2} for CIFAR, four groups, after its condensation (Huang et al. 2018)",
        _marks(f"denseblock_3.denselayer_{layers}"),
    )
    for layers in (8, 12, 14, 16, 18, 20)
} | {
    f"condensenet-74-g{groups}": untrained(
        partial(_make_imagenet, groups),
        (3, 224, 224),
        f"CondenseNet-74 for ImageNet, {groups} groups, after its condensation (Huang et al. 2018)",
        _marks("denseblock_5.denselayer_8"),
    )
    for groups in (4, 8)
}
