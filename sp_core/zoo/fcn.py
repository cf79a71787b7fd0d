"""Fully convolutional networks: VGG-16 whose last layers slide over the image, and class maps enlarged to its size.

Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, as in
github.com/shelhamer/fcn.berkeleyvision.org (``voc-fcn32s/net.py``, ``voc-fcn8s/net.py``): 100 pixels of padding around
the image, fc6 as 7 × 7 filters, 20 classes of Pascal VOC and the background. ``fcn32s`` enlarges once by 32; ``fcn8s``
adds the scores of pool4 and pool3 on the way. Enlarging is bilinear and fixed: its weights are buffers, not parameters.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained

_LAYERS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def bilinear(size: int) -> Tensor:
    """The kernel ``[size, size]`` that enlarges a map (``surgery.py``).

    >>> bilinear(4)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    return torch.outer(line, line)


class Enlarge(nn.Module):
    """A transposed convolution with fixed bilinear weights, each map by itself (Caffe's has zeros between them)."""

    weight: Tensor

    def __init__(self, classes: int, size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("weight", bilinear(size).expand(classes, 1, size, size).clone())

    def forward(self, x: Tensor) -> Tensor:
        """``[n, classes, h, w]`` to ``[n, classes, (h - 1) · stride + size, …]``."""
        return F.conv_transpose2d(x, self.weight, stride=self.stride, groups=x.shape[1])


class FCN(nn.Module):
    """``stride`` 32 or 8: normalised images ``[n, 3, h, w]`` to logits ``[n, classes, h, w]``."""

    def __init__(self, stride: int = 32, classes: int = 21) -> None:
        super().__init__()
        channels = 3
        for block, widths in enumerate(_LAYERS, 1):
            layers = nn.Sequential()
            for index, width in enumerate(widths, 1):
                padding = 100 if channels == 3 else 1
                layers.add_module(f"conv{block}_{index}", nn.Conv2d(channels, width, 3, padding=padding))
                layers.add_module(f"relu{block}_{index}", nn.ReLU(inplace=True))
                channels = width
            layers.add_module(f"pool{block}", nn.MaxPool2d(2, ceil_mode=True))
            self.add_module(f"block{block}", layers)
        self.fc6 = nn.Conv2d(512, 4096, kernel_size=7)
        self.fc7 = nn.Conv2d(4096, 4096, kernel_size=1)
        self.drop = nn.Dropout2d()
        self.score_fr = nn.Conv2d(4096, classes, kernel_size=1)
        self.score_pool4: nn.Module | None = None
        if stride == 8:
            self.score_pool4 = nn.Conv2d(512, classes, kernel_size=1)
            self.score_pool3 = nn.Conv2d(256, classes, kernel_size=1)
            self.upscore2, self.upscore_pool4 = Enlarge(classes, 4, 2), Enlarge(classes, 4, 2)
        self.upscore = Enlarge(classes, 64 if stride == 32 else 16, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images of any size to as many pixels of logits."""
        height, width = x.shape[2:]
        pools = []
        for block in range(1, 6):
            x = self.get_submodule(f"block{block}")(x)
            pools.append(x)
        fc6 = self.drop(F.relu(self.fc6(x)))
        score = self.score_fr(self.drop(F.relu(self.fc7(fc6))))
        if self.score_pool4 is None:
            return _window(self.upscore(score), 19, height, width)
        score = self.upscore2(score)
        score = score + _window(self.score_pool4(pools[3]), 5, *score.shape[2:])
        score = self.upscore_pool4(score)
        score = score + _window(self.score_pool3(pools[2]), 9, *score.shape[2:])
        return _window(self.upscore(score), 31, height, width)


def _window(x: Tensor, start: int, height: int, width: int) -> Tensor:
    return x[:, :, start : start + height, start : start + width]


def _make(stride: int, classes: int = 21) -> nn.Module:
    return FCN(stride, classes)


ENTRIES: dict[str, Entry] = {
    "fcn32s": untrained(
        partial(_make, 32),
        (3, 224, 224),
        "FCN-32s on VGG-16 for Pascal VOC (Long et al. 2015)",
        {"block1.conv1_1.weight", "fc6.weight", "score_fr.weight", "upscore.weight"},
    ),
    "fcn8s": untrained(
        partial(_make, 8),
        (3, 224, 224),
        "FCN-8s on VGG-16, with the scores of pool3 and pool4 (Long et al. 2015)",
        {"block1.conv1_1.weight", "fc6.weight", "score_pool3.weight", "upscore_pool4.weight"},
    ),
}
