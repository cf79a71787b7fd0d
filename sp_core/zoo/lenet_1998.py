"""LeNet-5 as it was in 1998: trained subsampling, a scaled tanh, and a C3 layer that sees only some of the maps.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 1998, section
II.B and table I. The network as it is written today is ``lenet5``. Its last layer, 84 distances to fixed pictures of
the digits (radial basis functions), is not trained; here they are a buffer, and the logits are minus those distances.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

# Table I: which of the six maps of S2 each of the sixteen maps of C3 sees.
TABLE_I = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class Squash(nn.Module):
    """1.7159 · tanh(2x / 3): its slope is about 1 where its value is between -1 and 1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of 2 × 2 pixels times one trained number a map, plus one bias: 2 parameters a map (S2, S4)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps).fill_(0.25))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, maps, h, w]`` to ``[n, maps, h / 2, w / 2]``."""
        return 4 * F.avg_pool2d(x, 2) * self.weight[:, None, None] + self.bias[:, None, None]


class PartialConv(nn.Module):
    """C3: each map is a 5 × 5 convolution of the maps that table I names, and has one bias: 1,516 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(seen), 1, kernel_size=5) for seen in TABLE_I)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 6, h, w]`` to ``[n, 16, h - 4, w - 4]``."""
        maps = x.split(1, 1)
        chosen = (torch.cat([maps[i] for i in seen], 1) for seen in TABLE_I)
        return torch.cat([conv(part) for conv, part in zip(self.maps, chosen, strict=True)], 1)


class LeNet1998(nn.Module):
    """Sixty thousand trained parameters; digits ``[n, 1, 32, 32]`` to ``[n, classes]``, minus squared distances."""

    codes: Tensor

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.c1 = nn.Sequential(nn.Conv2d(1, 6, kernel_size=5), Squash())  # [n, 6, 28, 28]
        self.s2 = nn.Sequential(Subsampling(6), Squash())
        self.c3 = nn.Sequential(PartialConv(), Squash())  # [n, 16, 10, 10]
        self.s4 = nn.Sequential(Subsampling(16), Squash())
        self.c5 = nn.Sequential(nn.Conv2d(16, 120, kernel_size=5), Squash())  # [n, 120, 1, 1]
        self.f6 = nn.Sequential(nn.Flatten(), nn.Linear(120, 84), Squash())
        self.register_buffer("codes", torch.randint(0, 2, (classes, 84)) * 2.0 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[n, classes]``: -Σ (f6 - code)², equation 7."""
        x = self.f6(self.c5(self.s4(self.c3(self.s2(self.c1(x))))))
        return -(x[:, None] - self.codes).square().sum(2)


ENTRIES: dict[str, Entry] = {
    "lenet5-1998": untrained(
        LeNet1998,
        (1, 32, 32),
        "LeNet-5 as it was (LeCun et al. 1998): trained subsampling, tanh, and table I's connections",
        {"c3.0.maps.15.weight", "f6.1.weight", "codes"},
        "The codes of the last layer are random here: the original drew the digits on 7 × 12 pixels by hand.",
    )
}
