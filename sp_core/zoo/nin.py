"""Network in network, with filter groups and with low-rank filters.

Lin, Chen and Yan, "Network in network", ICLR 2014: each spatial convolution is followed by two 1 × 1 ones, and the last
maps are averaged into logits. ``nin-cifar-rootG``, ``-treeG`` and ``-columnG`` are the filter groups of Ioannou et al.,
"Deep roots", CVPR 2017, table 1: a *root* module is a grouped spatial convolution whose maps the next, ungrouped 1 × 1
convolution mixes, with fewer groups the deeper the layer; a *tree* has more the deeper, a *column* as many everywhere.
``nin-cifar-c3-lr`` is of "Training CNNs with low-rank filters" (ICLR 2016): 3 × 3 filters throughout (two layers for
the second 5 × 5), half of them 1 × 3 and half 3 × 1; its published operations are for crops of 30 pixels.
``nin-imagenet`` is the one of Caffe's model zoo. Pooling rounds up, as in Caffe. ``batch_norm=True`` adds BatchNorm,
with which the grouped networks were trained.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained
from sp_core.zoo.vgg_low_rank import Composite, low_rank


def _stage(name: str, spatial: dict[str, nn.Module], channels: int, *widths: int) -> dict[str, nn.Module]:
    """The spatial layers, then two 1 × 1 convolutions (``cccp``), with a ReLU after each."""
    layers: dict[str, nn.Module] = {}
    for index, (key, part) in enumerate(spatial.items()):
        layers |= {key: part, f"relu{name}{'ab'[index]}" if len(spatial) > 1 else f"relu{name}": nn.ReLU(inplace=True)}
    for index, width in enumerate(widths, 1):
        layers[f"cccp{name}_{index}"] = nn.Conv2d(channels, width, kernel_size=1)
        layers[f"relu{name}_{index}"] = nn.ReLU(inplace=True)
        channels = width
    return layers


class NiN(nn.Module):
    """Three stages for CIFAR; images ``[n, 3, h, w]`` (from 16 pixels up) to logits ``[n, classes]``.

    ``groups``: of the second and the third spatial layer. ``thin``: low-rank 3 × 3 layers instead of 5 × 5 ones.
    ``batch_norm``: BatchNorm without trained scale and shift in front of each ReLU but the last.
    """

    def __init__(
        self, groups: tuple[int, int] = (1, 1), thin: bool = False, batch_norm: bool = False, classes: int = 10
    ) -> None:
        super().__init__()
        if thin:
            first: dict[str, nn.Module] = {"conv1": low_rank(3, 192)}
            second: dict[str, nn.Module] = {"conv2a": low_rank(96, 192), "conv2b": low_rank(192, 192)}
            third: dict[str, nn.Module] = {"conv3": low_rank(192, 192)}
        else:
            first = {"conv1": nn.Conv2d(3, 192, kernel_size=5, padding=2)}
            second = {"conv2": nn.Conv2d(96, 192, kernel_size=5, padding=2, groups=groups[0])}
            third = {"conv3": nn.Conv2d(192, 192, kernel_size=3, padding=1, groups=groups[1])}
        layers = _stage("1", first, 192, 160, 96)
        layers |= {"pool1": nn.MaxPool2d(3, 2, ceil_mode=True), "drop1": nn.Dropout()}  # half the image
        layers |= _stage("2", second, 192, 192, 192)
        layers |= {"pool2": nn.AvgPool2d(3, 2, ceil_mode=True), "drop2": nn.Dropout()}
        layers |= _stage("3", third, 192, 192, classes)
        layers |= {"pool3": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        _fill(self, _normalised(layers) if batch_norm else layers)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        for part in self.children():
            x = part(x)
        return x


class NiNImageNet(nn.Module):
    """Four stages behind 11 × 11 filters; images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers = _stage("1", {"conv1": nn.Conv2d(3, 96, kernel_size=11, stride=4)}, 96, 96, 96)  # [n, 96, 54, 54]
        layers["pool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)  # 27
        layers |= _stage("2", {"conv2": nn.Conv2d(96, 256, kernel_size=5, padding=2)}, 256, 256, 256)
        layers["pool2"] = nn.MaxPool2d(3, 2, ceil_mode=True)  # 13
        layers |= _stage("3", {"conv3": nn.Conv2d(256, 384, kernel_size=3, padding=1)}, 384, 384, 384)
        layers |= {"pool3": nn.MaxPool2d(3, 2, ceil_mode=True), "drop3": nn.Dropout()}  # 6
        layers |= _stage("4", {"conv4": nn.Conv2d(384, 1024, kernel_size=3, padding=1)}, 1024, 1024, classes)
        layers |= {"pool4": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        _fill(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` to logits ``[n, classes]``."""
        for part in self.children():
            x = part(x)
        return x


def _normalised(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    channels = 0
    for name, part in layers.items():
        channels = part.out_channels if isinstance(part, (nn.Conv2d, Composite)) else channels
        if isinstance(part, nn.ReLU) and name != "relu3_2":
            found[name.replace("relu", "bn")] = nn.BatchNorm2d(channels, affine=False)
        found[name] = part
    return found


def _fill(net: nn.Module, layers: dict[str, nn.Module]) -> None:
    for name, part in layers.items():
        net.add_module(name, part)
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")


def _make(groups: tuple[int, int], thin: bool, classes: int = 10, batch_norm: bool = False) -> nn.Module:
    return NiN(groups, thin, batch_norm, classes)


def _entry(about: str, groups: tuple[int, int] = (1, 1), thin: bool = False) -> Entry:
    marks = {
        "cccp1_2.weight",
        "cccp2_2.weight",
        "cccp3_2.weight",
        "conv3.filters1x3.weight" if thin else "conv2.weight",
    }
    return untrained(partial(_make, groups, thin), (3, 32, 32), about, marks)


def _grouped() -> dict[str, Entry]:
    found = {}
    for kind in ("root", "tree", "column"):
        for g in (2, 4, 8, 16):
            groups = {"root": (g, max(g // 2, 1)), "tree": (g, 2 * g), "column": (g, g)}[kind]
            about = f"Network in network with {groups[0]} and {groups[1]} filter groups, a {kind} (Ioannou et al. 2017)"
            found[f"nin-cifar-{kind}{g}"] = _entry(about, groups)
    return found


ENTRIES: dict[str, Entry] = {
    "nin-cifar": _entry("Network in network for CIFAR (Lin et al. 2014)"),
    **_grouped(),
    "nin-cifar-c3-lr": _entry("Network in network of 1 × 3 and 3 × 1 filters (Ioannou et al. 2016)", thin=True),
    "nin-imagenet": untrained(
        NiNImageNet,
        (3, 224, 224),
        "Network in network for ImageNet (Lin et al. 2014, as in Caffe's model zoo)",
        {"cccp1_2.weight", "cccp3_2.weight", "cccp4_2.weight", "conv4.weight"},
    ),
}
