"""U-Net: down through four poolings, up again, and at each size the maps of the way down beside those of the way up.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015, figure 1.
``unet`` is the paper's: no padding, so that 572 pixels give the classes of the inner 388, and the maps of the way down
are cropped. ``unet-milesial`` is the widespread one of github.com/milesial/Pytorch-UNet, whose names of weights both
have: padded, with BatchNorm and for colour images. The output is one map of logits a class.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class DoubleConv(nn.Module):
    """Twice 3 × 3 and ReLU; ``padded``: with padding, and BatchNorm instead of a bias."""

    def __init__(self, channels_in: int, channels: int, padded: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in (channels_in, channels):
            layers.append(nn.Conv2d(wide, channels, kernel_size=3, padding=int(padded), bias=not padded))
            layers += [nn.BatchNorm2d(channels)] if padded else []
            layers.append(nn.ReLU(inplace=True))
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h, w]``, 4 pixels less without padding."""
        return self.double_conv(x)


class Down(nn.Module):
    """Pooling, then two convolutions."""

    def __init__(self, channels: int, padded: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(channels, 2 * channels, padded))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` to ``[n, 2c, h / 2, w / 2]``."""
        return self.maxpool_conv(x)


class Up(nn.Module):
    """A 2 × 2 transposed convolution, the middle of the map on the way down beside it, two convolutions."""

    def __init__(self, channels: int, padded: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(channels, channels // 2, padded)

    def forward(self, x: Tensor, across: Tensor) -> Tensor:
        """``[n, c, h, w]`` and the larger ``[n, c / 2, H, W]`` to ``[n, c / 2, 2h, 2w]``."""
        x = self.up(x)
        top, left = (across.shape[2] - x.shape[2]) // 2, (across.shape[3] - x.shape[3]) // 2
        across = across[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        return self.conv(torch.cat([across, x], 1))


class UNet(nn.Module):
    """Images ``[n, channels, h, w]`` to logits ``[n, classes, h', w']``."""

    def __init__(self, channels: int = 1, padded: bool = False, classes: int = 2) -> None:
        super().__init__()
        self.inc = DoubleConv(channels, 64, padded)
        self.down1, self.down2 = Down(64, padded), Down(128, padded)
        self.down3, self.down4 = Down(256, padded), Down(512, padded)
        self.up1, self.up2 = Up(1024, padded), Up(512, padded)
        self.up3, self.up4 = Up(256, padded), Up(128, padded)
        self.outc = nn.Sequential()
        self.outc.add_module("conv", nn.Conv2d(64, classes, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        """The sides must be such that every pooling meets even ones: 572, or multiples of 16 with padding."""
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.up2(self.up1(self.down4(x4), x4), x3)
        return self.outc(self.up4(self.up3(x, x2), x1))


def _make(channels: int, padded: bool, classes: int = 2) -> nn.Module:
    return UNet(channels, padded, classes)


ENTRIES: dict[str, Entry] = {
    "unet": untrained(
        partial(_make, 1, False),
        (1, 572, 572),
        "U-Net without padding, 572 pixels to 388 (Ronneberger et al. 2015)",
        {"inc.double_conv.2.weight", "up4.conv.double_conv.2.weight", "outc.conv.weight"},
    ),
    "unet-milesial": untrained(
        partial(_make, 3, True),
        (3, 256, 256),
        "U-Net with padding and BatchNorm (github.com/milesial/Pytorch-UNet)",
        {"inc.double_conv.3.weight", "up4.conv.double_conv.3.weight", "outc.conv.weight"},
    ),
}
