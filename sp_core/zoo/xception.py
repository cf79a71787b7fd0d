"""Xception: inception modules taken to their limit, one filter a channel, then a 1 × 1 mixture, with skips.

Chollet, "Xception: deep learning with depthwise separable convolutions", CVPR 2017, figure 5, as in Keras. Its
22,855,952 parameters are the trained ones; Keras also counts the running statistics of BatchNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


def _separable(channels_in: int, channels: int) -> list[nn.Module]:
    """3 × 3 depthwise, 1 × 1, BatchNorm."""
    depthwise = nn.Conv2d(channels_in, channels_in, kernel_size=3, padding=1, groups=channels_in, bias=False)
    pointwise = nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)
    return [depthwise, pointwise, nn.BatchNorm2d(channels)]


class XceptionBlock(nn.Module):
    """Separable convolutions of ``widths`` with a ReLU before each, also the first where ``starts``; and a skip.

    ``stride`` 2: pooling at the end, and a 1 × 1 convolution in the skip.
    """

    def __init__(self, channels_in: int, widths: tuple[int, ...], stride: int = 2, starts: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = channels_in
        for index, width in enumerate(widths):
            if index or starts:
                layers.append(nn.ReLU())
            layers += _separable(channels, width)
            channels = width
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, padding=1))
            conv = nn.Conv2d(channels_in, channels, kernel_size=1, stride=2, bias=False)
            self.skip = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.body(x) + self.skip(x)


class Xception(nn.Module):
    """Normalised images ``[n, 3, 299, 299]`` to logits ``[n, classes]``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=3, stride=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, bias=False),  # [n, 64, 147, 147]
            nn.BatchNorm2d(64),
            nn.ReLU(),
            XceptionBlock(64, (128, 128), starts=False),
            XceptionBlock(128, (256, 256)),
            XceptionBlock(256, (728, 728)),  # [n, 728, 19, 19]
        )
        self.middle = nn.Sequential(*(XceptionBlock(728, (728, 728, 728), stride=1) for _ in range(8)))
        self.exit = nn.Sequential(
            XceptionBlock(728, (728, 1024)), *_separable(1024, 1536), nn.ReLU(), *_separable(1536, 2048), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, h, w]`` (from 71 pixels up) to logits ``[n, classes]``."""
        return self.fc(torch.flatten(self.pool(self.exit(self.middle(self.entry(x)))), 1))


ENTRIES: dict[str, Entry] = {
    "xception": untrained(
        Xception,
        (3, 299, 299),
        "Xception: depthwise separable convolutions with skips (Chollet 2017)",
        {"entry.8.skip.0.weight", "middle.7.body.9.weight", "exit.0.skip.0.weight", "fc.weight"},
    )
}
