"""MSDNet: maps of several scales in every layer, and a classifier after every few layers at which one may stop.

Huang, Chen, Li, Wu, van der Maaten and Weinberger, "Multi-scale dense networks for resource efficient image
classification", ICLR 2018, with the names of weights of github.com/kalviny/MSDNet-PyTorch. The coarsest scale is what
classifiers see. The layers are divided evenly among the scales; in each share the finest scale that is left is dropped,
and a 1 × 1 layer halves the channels. The network returns the logits of its last exit; those of all exits are the
layers ``classifier.0``, ``classifier.1``, …, and ``exits=k`` makes the network that stops at exit k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


@dataclass(frozen=True)
class Plan:
    """``steps``: layers before each exit. ``channels``, ``growth``: of the first and of each layer, at the finest.

    ``factors``: how many times as many each scale has, for channels and bottlenecks. ``imagenet``: the larger stem.
    """

    steps: tuple[int, ...]
    channels: int = 16
    growth: int = 6
    factors: tuple[int, ...] = (1, 2, 4)
    imagenet: bool = False


class ConvBasic(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
        self.net = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.net(x)


class ConvBN(nn.Module):
    """A 1 × 1 bottleneck of ``factor`` times the output's channels (never more than the input's), then 3 × 3."""

    def __init__(self, channels_in: int, channels: int, factor: int, stride: int = 1) -> None:
        super().__init__()
        inner = min(channels_in, factor * channels)
        self.net = nn.Sequential(
            *ConvBasic(channels_in, inner, kernel=1).net, *ConvBasic(inner, channels, stride=stride).net
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.net(x)


class ScaleNode(nn.Module):
    """New maps of one scale, put behind its old ones: from itself, or half each from itself and the finer scale."""

    def __init__(self, finer: tuple[int, int] | None, own: tuple[int, int], channels: int) -> None:
        super().__init__()
        half = channels if finer is None else channels // 2
        self.conv_down = None if finer is None else ConvBN(finer[0], half, finer[1], stride=2)
        self.conv_normal = ConvBN(own[0], half, own[1])

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """``[n, c, h, w]`` and perhaps the finer map to ``[n, c + channels, h, w]``."""
        new = [] if self.conv_down is None else [self.conv_down(finer)]
        return torch.cat([x, *new, self.conv_normal(x)], 1)


class FirstLayer(nn.Module):
    """The image at all scales, each from the one before it by stride 2."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        widths = [plan.channels * factor for factor in plan.factors]
        first: nn.Module = ConvBasic(3, widths[0])
        if plan.imagenet:  # the authors' has a bias
            conv = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3)
            first = nn.Sequential(conv, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))
        rest = (ConvBasic(widths[i - 1], widths[i], stride=2) for i in range(1, len(widths)))
        self.layers = nn.ModuleList([first, *rest])

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[n, 3, h, w]`` to one map a scale, the finest first."""
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class ScaleLayer(nn.Module):
    """One layer at all scales that are left; ``before`` and ``after`` are how many there were and are."""

    def __init__(self, channels: int, plan: Plan, before: int, after: int) -> None:
        super().__init__()
        scales = len(plan.factors)
        self.dropped = before - after
        self.layers = nn.ModuleList()
        for scale in range(scales - after, scales):
            factor = plan.factors[scale]
            finer = None
            if scale > scales - before:
                finer = (channels * plan.factors[scale - 1], plan.factors[scale - 1])
            self.layers.append(ScaleNode(finer, (channels * factor, factor), plan.growth * factor))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map a scale to one map a scale, ``dropped`` fewer."""
        out = []
        for index, node in enumerate(self.layers, self.dropped):
            out.append(node(maps[index], maps[index - 1]) if index else node(maps[0]))
        return out


class Halving(nn.Module):
    """A 1 × 1 layer a scale that halves its channels."""

    def __init__(self, channels: int, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.m = nn.ModuleList(ConvBasic(channels * f, channels // 2 * f, kernel=1) for f in factors)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map a scale to one map a scale."""
        return [layer(x) for layer, x in zip(self.m, maps, strict=True)]


class Exit(nn.Module):
    """Two 3 × 3 layers of stride 2 on the coarsest map, average pooling, linear."""

    def __init__(self, channels: int, inner: int, classes: int) -> None:
        super().__init__()
        self.m = nn.Sequential(ConvBasic(channels, inner, stride=2), ConvBasic(inner, inner, stride=2), nn.AvgPool2d(2))
        self.linear = nn.Linear(inner, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """One map a scale to logits ``[n, classes]``."""
        return self.linear(torch.flatten(self.m(maps[-1]), 1))


class MSDNet(nn.Module):
    """Normalised images of the entry's size to the logits ``[n, classes]`` of exit ``exits`` (the last by default)."""

    def __init__(self, plan: Plan, exits: int | None = None, classes: int = 10) -> None:
        super().__init__()
        self.blocks, self.classifier = nn.ModuleList(), nn.ModuleList()
        channels, done, scales = plan.channels, 0, len(plan.factors)
        share = math.ceil(sum(plan.steps) / scales)
        for steps in plan.steps[:exits]:
            parts: list[nn.Module] = [] if done else [FirstLayer(plan)]
            for _ in range(steps):
                before, after = scales - max(done - 1, 0) // share, scales - done // share
                parts.append(ScaleLayer(channels, plan, before, after))
                channels, done = channels + plan.growth, done + 1
                if before > after:
                    parts.append(Halving(channels, plan.factors[scales - after :]))
                    channels //= 2
            self.blocks.append(nn.Sequential(*parts))
            coarsest = channels * plan.factors[-1]
            self.classifier.append(Exit(coarsest, coarsest if plan.imagenet else 128, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits; every classifier runs, and is a layer."""
        return self.every_exit(x)[-1]

    def every_exit(self, x: Tensor) -> list[Tensor]:
        """Images to the logits of every exit: training sums their losses.

        The classifiers run last, because they take one size of image only: on a larger one the blocks can still be
        looked at.
        """
        maps, seen = x, []  # the first block takes the image, the others lists of maps
        for block in self.blocks:
            maps = block(maps)
            seen.append(maps)
        return [classifier(maps) for classifier, maps in zip(self.classifier, seen, strict=True)]


def _make(plan: Plan, usual: int, classes: int | None = None, exits: int | None = None) -> nn.Module:
    return MSDNet(plan, exits, usual if classes is None else classes)


def _even(blocks: int, base: int, step: int) -> tuple[int, ...]:
    return (base, *(step,) * (blocks - 1))


def _entry(plan: Plan, classes: int, about: str) -> Entry:
    size = (3, 224, 224) if plan.imagenet else (3, 32, 32)
    last = f"classifier.{len(plan.steps) - 1}.linear.weight"
    marks = {last, "blocks.0.1.layers.0.conv_normal.net.0.weight"}
    about = f"MSDNet with {len(plan.steps)} exits {about} (Huang et al. 2018)"
    return untrained(partial(_make, plan, classes), size, about, marks)


def _large(step: int) -> Plan:
    return Plan(_even(5, step, step), channels=32, growth=16, factors=(1, 2, 4, 4), imagenet=True)


ENTRIES: dict[str, Entry] = {
    "msdnet-cifar10": _entry(Plan(_even(10, 4, 2)), 10, "two layers apart, for CIFAR-10"),
    "msdnet-cifar10-small": _entry(Plan(_even(4, 2, 1), channels=8, growth=4), 10, "one layer apart, for CIFAR-10"),
    "msdnet-cifar100": _entry(Plan(_even(7, 4, 2)), 100, "two layers apart, for CIFAR-100"),
    "msdnet-cifar100-batch": _entry(Plan((1, 2, 3, 4, 5)), 100, "ever further apart, for CIFAR-100"),
    "msdnet-imagenet": _entry(_large(4), 1000, "four layers apart, for ImageNet"),
    "msdnet-imagenet-step7": _entry(_large(7), 1000, "seven layers apart, for ImageNet"),
}
