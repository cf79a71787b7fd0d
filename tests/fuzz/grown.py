"""Networks grown at random of what networks are made of; :mod:`tests.fuzz.networks` asks every engine about them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu_": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "clamp": lambda x: x.clamp(min=0),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 0.5),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "maximum": lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype, device=x.device)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
}
ELSE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "scale": lambda x: 0.7 * x - 0.1,
    "context": lambda x: x + x.mean((2, 3), keepdim=True),
    "top": lambda x: x[:, :, 1:, :],
    "every other": lambda x: x[:, :, ::2, 1::2],
    "pad": lambda x: F.pad(x, (2, 0, 1, 1)),
    "reflect": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "larger": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "smooth": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
    "corners": lambda x: F.interpolate(x, size=(x.shape[2] + 3, x.shape[3] * 2), mode="bilinear", align_corners=True),
    "thirds": lambda x: F.adaptive_avg_pool2d(x, (max(1, x.shape[2] // 3), max(1, x.shape[3] // 2))),
}


class Grown(nn.Module):
    """A network grown from ``seed`` for images of ``side`` pixels; ``steps`` says what it does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.side = self.random.choice([17, 20, 24, 31])
        self.parts = nn.ModuleList([nn.ReLU(), nn.ReLU(inplace=True)])  # used again and again
        self.steps: list[tuple[Any, ...]] = []
        self.head = nn.Identity()
        state: tuple[Tensor, list[Tensor], bool] = (torch.rand(2, 3, self.side, self.side), [], False)
        with torch.no_grad():
            for _ in range(self.random.randint(6, 24)):
                state = self._grow(*state)
            self.head = nn.Linear(state[0].shape[1], 5)
        del self.random

    def forward(self, image: Tensor) -> Tensor:
        x, kept = image, []
        for step in self.steps:
            x = self._do(step, x, kept)
        return self.head(x.mean((2, 3)))

    def _do(self, step: tuple[Any, ...], x: Tensor, kept: list[Tensor]) -> Tensor:
        kind, what = step
        if kind == "part":
            return self.parts[what](x)
        if kind == "rectify":
            return RECTIFIERS[what](x)
        if kind == "else":
            return ELSE[what](x)
        if kind == "keep":
            kept.append(x)
        elif kind == "add":
            x = x + kept[what]
        elif kind == "add in place":
            x += kept[what]
        elif kind == "place":
            x = x + self.parts[what](self.parts[what].weight.new_ones(1, 2, *x.shape[2:]))
        elif kind == "cat":
            x = torch.cat([x, kept[what]], 1)
        elif kind == "gate":
            x = x * torch.sigmoid(self.parts[what](x.mean((2, 3), keepdim=True)))
        elif kind == "shuffle":
            x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        elif kind == "halves":
            one, two = x.chunk(2, 1)
            x = torch.cat([self.parts[what](one), two], 1)
        return x

    def _grow(self, x: Tensor, kept: list[Tensor], zeros: bool) -> tuple[Tensor, list[Tensor], bool]:
        """Add one step that fits ``x``; ``zeros``: whether values may be exactly 0, where rules would be ambiguous."""
        step, clear = self._drawn(x, kept, zeros)
        if step is None:
            return x, kept, zeros
        self.steps.append(step)
        rectified = step[0] in {"rectify", "halves"} or step in {("part", 0), ("part", 1)}
        return self._do(step, x, kept), kept, not clear and (zeros or rectified)

    def _drawn(self, x: Tensor, kept: list[Tensor], zeros: bool) -> tuple[tuple[Any, ...] | None, bool]:
        """A step, and whether it leaves no exact zeros."""
        draw, (channels, h, w) = self.random, x.shape[1:]
        fresh = bool(self.steps) and self.steps[-1][0] == "part" and self.steps[-1][1] > 1 and not zeros
        kind = draw.choice(
            ["conv"] * 6 + ["norm"] * 2 + ["rectify"] * 5 + ["pool", "else", "else", "skip", "skip", "mix"]
        )
        if kind == "conv":
            again = [k for k, part in enumerate(self.parts) if getattr(part, "in_channels", 0) == channels]
            if again and draw.random() < 0.2 and min(h, w) > 9:
                return ("part", draw.choice(again)), True
            return self._part(self._conv(channels, h, w)), True
        if kind == "norm":
            norm = nn.BatchNorm2d(channels) if draw.random() < 0.8 else nn.GroupNorm(1, channels)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.3, 2)
            return self._part(norm.eval()), True
        if kind == "rectify":
            if zeros:
                return None, False
            if draw.random() < 0.4:
                return ("part", draw.choice([0, 1]) if fresh else 0), False
            name = draw.choice(list(RECTIFIERS))
            return ("rectify", name if fresh or not name.endswith("_") else "F.relu"), False
        if kind == "pool":
            size, stride = draw.choice([2, 3]), draw.choice([1, 2])
            if min(h, w) < 6:
                return None, False
            ceil, pad = draw.random() < 0.5, draw.choice([0, 1])
            pool = nn.MaxPool2d(size, stride, pad, draw.choice([1, 2]), ceil_mode=ceil)
            return self._part(pool if draw.random() < 0.5 else nn.AvgPool2d(size, stride, pad, ceil)), False
        if kind == "else":
            name = draw.choice(list(ELSE))
            large, small = max(h, w) > 40, min(h, w) < 6
            if (large and name in {"larger", "smooth", "corners"}) or (
                small and name in {"top", "every other", "thirds", "reflect"}
            ):
                return None, False
            return ("else", name), False
        if kind == "skip":
            same = [k for k, one in enumerate(kept) if one.shape == x.shape]
            near = [k for k, one in enumerate(kept) if one.shape[2:] == x.shape[2:]]
            if same and draw.random() < 0.6:
                return ("add in place" if fresh and draw.random() < 0.5 else "add", draw.choice(same)), False
            if near and channels < 24:
                return ("cat", draw.choice(near)), False
            return ("keep", None), False
        if channels % 2 == 0 and draw.random() < 0.6:
            return (("shuffle", None) if draw.random() < 0.5 or zeros else ("halves", 0)), False
        if draw.random() < 0.3:
            return ("place", self._part(nn.Conv2d(2, channels, 1))[1]), False
        gate = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1))
        return ("gate", self._part(gate)[1]), False

    def _part(self, part: nn.Module) -> tuple[str, int]:
        self.parts.append(part)
        return "part", len(self.parts) - 1

    def _conv(self, channels: int, h: int, w: int) -> nn.Module:
        draw = self.random
        out = draw.choice([4, 6, 8])
        if min(h, w) < 6:
            return nn.Conv2d(channels, out, 1)
        if draw.random() < 0.12 and max(h, w) < 32:
            return nn.ConvTranspose2d(channels, out, draw.choice([2, 3]), draw.choice([1, 2]), draw.choice([0, 1]))
        kernel = draw.choice([1, 2, 3, 3, 3, (1, 3), (3, 1), 5])
        stride, mode = (
            draw.choice([1, 1, 1, 2, (1, 2)]),
            draw.choice(["zeros"] * 4 + ["reflect", "replicate", "circular"]),
        )
        groups = draw.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
        out = -(-out // groups) * groups
        dilation, padding = draw.choice([1, 1, 2]) if kernel == 3 else 1, draw.choice([0, 1, 2])
        return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, padding_mode=mode)
