"""HRNet for classification: maps of full, half, quarter and eighth resolution side by side, mixed again and again.

Wang et al., "Deep high-resolution representation learning for visual recognition", TPAMI 2020, with the names of
weights of github.com/HRNet/HRNet-Image-Classification. ``hrnet-w18`` has 18 channels at the finest scale, 36, 72 and
144 at the others. Each exchange sums what all scales send: coarser maps through 1 × 1 and nearest enlarging, finer ones
through 3 × 3 convolutions of stride 2. The GFLOPs that the authors print are multiply-accumulates divided by 2³⁰.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained
from sp_core.zoo.se_resnet import Bottleneck
from sp_core.zoo.textures import BasicBlock


def _followed(
    channels_in: int, channels: int, kernel: int, stride: int, relu: bool = True, bias: bool = False
) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), *([nn.ReLU()] if relu else []))


class Exchange(nn.Module):
    """Four basic blocks at each scale, then every scale gets the sum of all."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        scales = len(widths)
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w, 1) for _ in range(4))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, goal) for source in range(scales)) for goal in range(scales)
        )

    @staticmethod
    def _path(widths: tuple[int, ...], source: int, goal: int) -> nn.Module:
        if source == goal:
            return nn.Identity()
        if source > goal:
            path = _followed(widths[source], widths[goal], 1, 1, relu=False)
            return path.append(nn.Upsample(scale_factor=2.0 ** (source - goal), mode="nearest"))
        last = _followed(widths[source], widths[goal], 3, 2, relu=False)
        halvings = (_followed(widths[source], widths[source], 3, 2) for _ in range(goal - source - 1))
        return nn.Sequential(*halvings, last)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map a scale to one map a scale, of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        out = []
        for goal in range(len(maps)):
            paths = (self.get_submodule(f"fuse_layers.{goal}.{source}") for source in range(len(maps)))
            total, *others = (path(x) for path, x in zip(paths, maps, strict=True))
            for sent in others:
                total = total + sent
            out.append(F.relu(total))
        return out


class HRNet(nn.Module):
    """Normalised images ``[n, 3, 224, 224]`` to logits ``[n, classes]``."""

    def __init__(self, width: int = 18, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(*(Bottleneck(256 if i else 64, 64) for i in range(4)))  # [n, 256, 56, 56]
        before: tuple[int, ...] = (256,)
        for stage, modules in ((2, 1), (3, 4), (4, 3)):
            widths = tuple(width * 2**scale for scale in range(stage))
            begin = nn.ModuleList(nn.Identity() for _ in before)
            if stage == 2:
                begin[0] = _followed(256, widths[0], 3, 1)
            begin.append(nn.Sequential(_followed(before[-1], widths[-1], 3, 2)))
            self.add_module(f"transition{stage - 1}", begin)
            self.add_module(f"stage{stage}", nn.Sequential(*(Exchange(widths) for _ in range(modules))))
            before = widths
        head = (32, 64, 128, 256)
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(channels, wide)) for channels, wide in zip(before, head, strict=True)
        )
        down = ((4 * wide, 8 * wide) for wide in head[:3])
        self.downsamp_modules = nn.ModuleList(_followed(a, b, 3, 2, bias=True) for a, b in down)
        self.final_layer = _followed(1024, 2048, 1, 1, bias=True)
        self.classifier = nn.Linear(2048, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (multiples of 32 pixels) to logits ``[n, classes]``."""
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        maps = [self.layer1(x)]
        for stage in (2, 3, 4):
            begin = self.get_submodule(f"transition{stage - 1}")
            sources = [*maps, maps[-1]]  # the new, coarser scale begins from the coarsest there was
            maps = [part(source) for part, source in zip(begin.children(), sources, strict=True)]
            maps = self.get_submodule(f"stage{stage}")(maps)
        y = self.incre_modules[0](maps[0])
        for down, wider, x in zip(self.downsamp_modules, list(self.incre_modules)[1:], maps[1:], strict=True):
            y = wider(x) + down(y)
        return self.classifier(self.final_layer(y).mean((2, 3)))


def _make(width: int, classes: int = 1000) -> nn.Module:
    return HRNet(width, classes)


ENTRIES: dict[str, Entry] = {
    f"hrnet-w{width}": untrained(
        partial(_make, width),
        (3, 224, 224),
        f"HRNet with {width} channels at the finest scale (Wang et al. 2020)",
        {"stage4.2.fuse_layers.3.0.0.0.weight", "incre_modules.3.0.conv3.weight", "classifier.weight"},
    )
    for width in (18, 30, 32, 40, 44, 48, 64)
}
