"""DiracNet: as deep as a residual network and without skips, because the identity is inside each weight.

Zagoruyko and Komodakis, "DiracNets: training very deep neural networks without skip-connections", arXiv 1706.00388,
2017, second version: Ŵ = diag(a) I + diag(b) W / ‖W‖ in every 3 × 3 convolution but the stem
(:class:`sp_core.parameterizations.Dirac`), each between a ReLU and a BatchNorm. ``diracnet-d-k`` is for CIFAR, with
max pooling between its three groups and, unlike a wide residual network, 16k channels in the stem; ``diracnet18`` and
``diracnet34`` are for ImageNet. ``-folded`` is what is run after training, with a, b and BatchNorm folded into one
weight and bias: a plain chain of convolutions and ReLUs. Parameters of the lecture's table (11.7 and 21.8 million) are
ResNet's; its figure has the right ones, 11.52 and 21.64 million.
"""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor, nn

from sp_core.parameterizations import apply, fold
from sp_core.zoo.entry import Entry, untrained

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _add(net: nn.Sequential, **parts: nn.Module) -> None:
    for name, part in parts.items():
        net.add_module(name, part)


def _chain(channels_in: int, channels: int, convolutions: int, folded: bool) -> nn.Sequential:
    group = nn.Sequential()
    for index in range(convolutions):
        block = nn.Sequential()
        wide = channels if index else channels_in
        _add(block, relu=nn.ReLU(), conv=nn.Conv2d(wide, channels, kernel_size=3, padding=1, bias=folded))
        if not folded:
            _add(block, bn=nn.BatchNorm2d(channels))
        group.add_module(f"block{index}", block)
    return group


class DiracNet(nn.Module):
    """``layers``: convolutions of each group; images ``[n, 3, h, w]`` to logits ``[n, classes]``.

    ``small``: the 3 × 3 stem for CIFAR. Weights are plain here; the family's entries make them Dirac weights.
    """

    def __init__(
        self, layers: tuple[int, ...], widths: tuple[int, ...], small: bool, folded: bool, classes: int
    ) -> None:
        super().__init__()
        channels = widths[0]
        kernel = 3 if small else 7
        self.features = nn.Sequential()
        stem = nn.Conv2d(3, channels, kernel, stride=1 if small else 2, padding=kernel // 2, bias=folded)
        _add(self.features, conv=stem)
        if not folded:
            _add(self.features, bn=nn.BatchNorm2d(channels))
        _add(self.features, stem=nn.ReLU() if small else nn.MaxPool2d(3, 2, padding=1))
        for index, (count, width) in enumerate(zip(layers, widths, strict=True)):
            if index:
                self.features.add_module(f"max_pool{index}", nn.MaxPool2d(2))
            self.features.add_module(f"group{index}", _chain(channels, width, count, folded))
            channels = width
        _add(self.features, last_relu=nn.ReLU(), avg_pool=nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 4 pixels, or of 32 for ImageNet) to logits."""
        return self.fc(torch.flatten(self.features(x), 1))


def _dirac(net: nn.Module, folded: bool, dirac: bool = True) -> nn.Module:
    if not dirac:
        return net
    apply(net, "dirac", layers=["features.group*.conv"], fresh=True)
    return fold(net) if folded else net


def _make_imagenet(depth: int, folded: bool, classes: int = 1000) -> nn.Module:
    layers = tuple(2 * blocks for blocks in _BLOCKS[depth])
    return _dirac(DiracNet(layers, (64, 128, 256, 512), False, folded, classes), folded)


def _make_cifar(depth: int, width: int, folded: bool, classes: int = 10, dirac: bool = True) -> nn.Module:
    """``dirac=False``: the same chain with plain weights, as in the paper's comparison."""
    layers, widths = ((depth - 4) // 3,) * 3, (16 * width, 32 * width, 64 * width)
    return _dirac(DiracNet(layers, widths, True, folded, classes), folded, dirac)


def _marks(group: int, block: int, folded: bool) -> set[str]:
    weight = "weight" if folded else "parametrizations.weight.original0"
    return {"features.conv.weight", f"features.group{group}.block{block}.conv.{weight}", "fc.weight"}


def _entry(depth: int, folded: bool) -> Entry:
    return untrained(
        partial(_make_imagenet, depth, folded),
        (3, 224, 224),
        f"DiracNet-{depth} for ImageNet{', folded' if folded else ''} (Zagoruyko and Komodakis 2017)",
        _marks(3, 2 * _BLOCKS[depth][3] - 1, folded) | _marks(2, 2 * _BLOCKS[depth][2] - 1, folded),
    )


def by_name(name: str) -> Entry | None:
    """The entry of any ``diracnet-d-k`` with d = 6 · n + 4, perhaps ``-folded``; None for another name.

    >>> by_name("diracnet-100-4").about
    'DiracNet-100-4 for CIFAR (Zagoruyko and Komodakis 2017)'
    """
    match = re.fullmatch(r"diracnet-(\d{2,3})-(\d{1,2})(-folded|)", name)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if match is None or depth % 6 != 4 or not width:
        return None
    folded = bool(match[3])
    return untrained(
        partial(_make_cifar, depth, width, folded),
        (3, 32, 32),
        f"DiracNet-{depth}-{width} for CIFAR{', folded' if folded else ''} (Zagoruyko and Komodakis 2017)",
        _marks(2, (depth - 4) // 3 - 1, folded),
    )


_LISTED = ("diracnet-16-1", "diracnet-28-5", "diracnet-28-10", "diracnet-34-1")
ENTRIES: dict[str, Entry] = {
    f"diracnet{depth}{'-folded' if folded else ''}": _entry(depth, folded)
    for depth in _BLOCKS
    for folded in (False, True)
} | {name: found for name in _LISTED if (found := by_name(name)) is not None}
