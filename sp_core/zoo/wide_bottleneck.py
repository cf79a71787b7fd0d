"""Wide residual networks of bottlenecks for CIFAR: the networks of the symmetric parametrisations.

Zagoruyko's ``resnet_bottleneck`` (github.com/hushell/deep-symmetry; Hu, Zagoruyko and Komodakis, "Exploring weight
symmetry in deep neural networks", arXiv 1812.11027, 2018): blocks of 1 × 1, 3 × 3 and 1 × 1 with BatchNorm and ReLU
before each convolution. ``wrn-d-k-bottleneck`` has (d - 4) / 6 blocks a group, 16k, 32k and 64k channels in the 3 × 3
layers and four times as many outside: their "width" is that of the square 3 × 3 layers, to which
``symmetry="triangular"`` and the other symmetric parametrisations apply.
"""

from __future__ import annotations

import re
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.parameterizations import apply
from sp_core.zoo.entry import Entry, untrained
from sp_core.zoo.preact_resnet import PreAct


class WideBottleneckNet(nn.Module):
    """WRN-``depth``-``width`` of bottlenecks; normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, depth: int = 16, width: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        channels = 16
        for group in range(3):
            inner, layers = 16 * 2**group * width, []
            for index in range((depth - 4) // 6):
                stride = 2 if group > 0 and index == 0 else 1
                layers.append(PreAct(channels, (inner, inner, 4 * inner), (1, 3, 1), stride, 1))
                channels = 4 * inner
            self.add_module(f"group{group}", nn.Sequential(*layers))
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels) to logits ``[n, classes]``."""
        x = self.conv1(x)
        for group in range(3):
            x = self.get_submodule(f"group{group}")(x)  # at last [n, 256 · width, h / 4, w / 4]
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


def _make(depth: int, width: int, classes: int = 10, symmetry: str | None = None) -> nn.Module:
    """``symmetry``: of the 3 × 3 convolutions, one of ``sp_core.parameterizations.names("symmetric")``."""
    net = WideBottleneckNet(depth, width, classes)
    return net if symmetry is None else apply(net, symmetry, layers=["group*.conv2"], fresh=True)


def by_name(name: str) -> Entry | None:
    """The entry of any ``wrn-d-k-bottleneck`` with d = 6 · n + 4, listed or not; None for another name.

    >>> by_name("wrn-100-2-bottleneck").about
    'WRN-100-2 of bottlenecks for CIFAR (Hu, Zagoruyko and Komodakis 2018)'
    """
    match = re.fullmatch(r"wrn-(\d{2,3})-(\d{1,2})-bottleneck", name)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if depth % 6 != 4 or not width:
        return None
    return untrained(
        partial(_make, depth, width),
        (3, 32, 32),
        f"WRN-{depth}-{width} of bottlenecks for CIFAR (Hu, Zagoruyko and Komodakis 2018)",
        {f"group2.{(depth - 4) // 6 - 1}.conv3.weight", "group0.0.bn3.weight", "fc.weight"},
    )


_LISTED = ("wrn-16-1-bottleneck", "wrn-16-2-bottleneck", "wrn-34-1-bottleneck")
ENTRIES: dict[str, Entry] = {name: found for name in _LISTED if (found := by_name(name)) is not None}
