"""FractalNet: very deep without skips, because a short path lies beside every long one.

Larsson, Maire and Shakhnarovich, "FractalNet: ultra-deep neural networks without residuals", ICLR 2017. A block of C
columns is f₁ = convolution, f₍C₊₁₎ = (f₍C₎ ∘ f₍C₎) ⊕ convolution, where ⊕ is the mean of all columns that end at a row:
column c has 2 ^ c convolutions, the longest path through five blocks of three columns 20. In training paths are
dropped, in half of the batches each input of a join (15 %, one is always kept), in the other half all columns but one.

The paper says 38.6 million parameters; its authors' generator makes 33.7 million, and so does this.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

_WIDTHS = (64, 128, 256, 512, 512)
_DROPOUT = (0.0, 0.1, 0.2, 0.3, 0.4)


class FractalBlock(nn.Module):
    """``columns`` paths of 1, 2, 4, … convolutions, joined wherever they meet."""

    def __init__(self, channels_in: int, channels: int, columns: int, dropout: float) -> None:
        super().__init__()
        self.rows = 2 ** (columns - 1)
        self.columns = nn.ModuleList()
        for column in range(columns):
            convs = (self._layer(channels if i else channels_in, channels, dropout) for i in range(2**column))
            self.columns.append(nn.Sequential(*convs))

    @staticmethod
    def _layer(channels_in: int, channels: int, dropout: float) -> nn.Module:
        conv = nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def forward(self, x: Tensor, only: int | None = None, drop: float = 0.0) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h, w]``; ``only``: one column; ``drop``: share of inputs."""
        state = [x] * len(self.columns)
        for row in range(1, self.rows + 1):
            ending = [c for c in range(len(self.columns)) if row % (self.rows >> c) == 0]
            if only is not None:
                ending = [c for c in ending if c == only]
            outs = [self.get_submodule(f"columns.{c}.{row // (self.rows >> c) - 1}")(state[c]) for c in ending]
            if outs:
                joined = _mean(outs, drop)
                for c in ending:
                    state[c] = joined
        return joined


def _mean(outs: list[Tensor], drop: float) -> Tensor:
    """The mean of those that are kept, at least one."""
    if drop:
        kept = (torch.rand(len(outs)) >= drop).tolist()
        kept[int(torch.randint(len(outs), ()))] |= not any(kept)
        outs = [out for out, keep in zip(outs, kept, strict=True) if keep]
    return torch.stack(outs).mean(0) if len(outs) > 1 else outs[0]


class FractalNet(nn.Module):
    """Normalised images ``[n, 3, 32, 32]`` to logits ``[n, classes]``."""

    def __init__(self, columns: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.count = columns
        self.blocks, channels = nn.ModuleList(), 3
        for width, dropout in zip(_WIDTHS, _DROPOUT, strict=True):
            self.blocks.append(FractalBlock(channels, width, columns, dropout))
            channels = width
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """In evaluation every path counts; in training some are dropped at random (torch's global generator)."""
        one = self.training and bool(torch.rand(()) < 0.5)
        only = int(torch.randint(self.count, ())) if one else None
        for block in self.blocks:
            x = self.pool(block(x, only, 0.15 if self.training and not one else 0.0))
        return self.fc(torch.flatten(x, 1))


def _make(classes: int = 10) -> nn.Module:
    return FractalNet(3, classes)


ENTRIES: dict[str, Entry] = {
    "fractalnet-cifar": untrained(
        _make,
        (3, 32, 32),
        "FractalNet of five blocks with three columns for CIFAR (Larsson et al. 2017)",
        {"blocks.4.columns.2.3.0.weight", "fc.weight"},
    )
}
