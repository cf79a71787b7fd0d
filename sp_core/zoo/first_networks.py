"""The networks that people train first: PyTorch's CIFAR-10 tutorial, its MNIST examples, and LeNet-5.

All are convolutions and linear layers with ReLU and 2 × 2 max pooling between. Their names (``conv1``, ``fc1``) are so
common that names and shapes say less here than elsewhere: each entry says what it leaves open. Where the original ends
in a log-softmax, the network here ends in the logits before it: the same probabilities, and scores that can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core.zoo.cifar_resnet import CIFAR10_CLASSES
from sp_core.zoo.entry import Entry

_DIGITS = tuple("0123456789")


class TwoConvolutions(nn.Module):
    """Twice 5 × 5 convolution, ReLU, 2 × 2 max pooling; then linear layers with ReLU between.

    LeCun et al., "Gradient-based learning applied to document recognition", 1998, figure 2, as it is written today: the
    original had trained subsampling, tanh and a C3 layer that saw only some of the maps.
    """

    def __init__(self, widths: tuple[int, int, int], padding: int, hidden: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, first, second = widths
        self.conv1 = nn.Conv2d(channels, first, kernel_size=5, padding=padding)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.pool2 = nn.MaxPool2d(2)
        sizes = (*hidden, classes)
        for i in range(1, len(sizes)):
            self.add_module(f"fc{i}", nn.Linear(sizes[i - 1], sizes[i]))
        self.linear_layers = len(sizes) - 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images of the entry's size ``[n, c, h, w]`` to logits ``[n, classes]``."""
        x = self.pool1(F.relu(self.conv1(x)))
        x = torch.flatten(self.pool2(F.relu(self.conv2(x))), 1)
        for i in range(1, self.linear_layers):
            x = F.relu(getattr(self, f"fc{i}")(x))
        return getattr(self, f"fc{self.linear_layers}")(x)


class MnistExample(nn.Module):
    """Two 3 × 3 convolutions, one pooling, two linear layers (github.com/pytorch/examples, mnist, since 2019)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 1, 28, 28]`` to logits ``[n, classes]``."""
        x = F.relu(self.conv2(F.relu(self.conv1(x))))  # [n, 64, 24, 24]
        x = torch.flatten(F.max_pool2d(x, 2), 1)
        return self.fc2(F.relu(self.fc1(x)))


def _make(widths: tuple[int, int, int], padding: int, hidden: tuple[int, ...], classes: int = 10) -> nn.Module:
    return TwoConvolutions(widths, padding, hidden, classes)


_MARKS = frozenset({"conv1.bias", "conv2.bias", "fc1.weight", "fc2.weight"})


def _digits(make: Callable[..., nn.Module], marks: frozenset[str], about: str) -> Entry:
    """Grey digits on 28 × 28 pixels; mean and standard deviation are those of MNIST's training pixels."""
    caveat = "ReLU, max pooling and MNIST's mean and std are guessed: names and shapes do not show them."
    return Entry(make, (1, 28, 28), (0.1307,), (0.3081,), _DIGITS, about, marks, caveat)


ENTRIES: dict[str, Entry] = {
    "lenet5": _digits(
        partial(_make, (1, 6, 16), 2, (400, 120, 84)),
        _MARKS | {"fc3.weight"},
        "LeNet-5 (LeCun et al. 1998) as it is written today: full connections, ReLU, max pooling",
    ),
    "mnist-example": _digits(
        MnistExample, _MARKS, "PyTorch's MNIST example: 32 and 64 filters of 3 × 3 (pytorch/examples, since 2019)"
    ),
    "mnist-example-10-20": _digits(
        partial(_make, (1, 10, 20), 0, (320, 50)),
        _MARKS,
        "PyTorch's first MNIST example: 10 and 20 filters of 5 × 5 (pytorch/examples, to 2018)",
    ),
    "mnist-example-20-50": _digits(
        partial(_make, (1, 20, 50), 0, (800, 500)),
        _MARKS,
        "PyTorch's MNIST example of 2019: 20 and 50 filters of 5 × 5, as in Caffe's LeNet (pytorch/examples)",
    ),
    "tutorial-cifar-net": Entry(
        partial(_make, (3, 6, 16), 0, (400, 120, 84)),
        (3, 32, 32),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        CIFAR10_CLASSES,
        "PyTorch's tutorial 'Training a classifier': LeNet-5 on the colour images of CIFAR-10",
        _MARKS | {"fc3.weight"},
        "ReLU, max pooling and the tutorial's mean and std of 0.5 are guessed: names and shapes do not show them.",
    ),
}
