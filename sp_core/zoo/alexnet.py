"""AlexNet as it was trained: filters in two groups, one a GPU, and local response normalisation.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012, with
the input of 227 pixels and the padding that its sizes imply, and normalisation before pooling. Torchvision's
``alexnet`` is another network: the narrower, single-tower one of Krizhevsky's "One weird trick" (2014).

What two groups cost and save is the first row of Ioannou's "Deep roots" (CVPR 2017, section 3): ``alexnet-groups1``
computes 57 % more, ``alexnet-groups4`` 28 % less.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sp_core.zoo.entry import Entry, untrained


class AlexNet(nn.Module):
    """``groups`` in conv2, conv4 and conv5; normalised images ``[n, 3, 227, 227]`` to logits ``[n, classes]``."""

    def __init__(self, groups: int = 2, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, kernel_size=11, stride=4)  # [n, 96, 55, 55]
        self.relu1 = nn.ReLU()
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
        self.pool1 = nn.MaxPool2d(3, 2)  # 27
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=groups)
        self.relu2 = nn.ReLU()
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
        self.pool2 = nn.MaxPool2d(3, 2)  # 13
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)  # the two towers meet here
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=groups)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=groups)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)  # [n, 256, 6, 6]
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout()
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout()
        self.fc8 = nn.Linear(4096, classes)
        for module in self.modules():  # section 5 of the paper
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None, "all have a bias"
                nn.init.constant_(module.bias, float(module not in (self.conv1, self.conv3, self.fc8)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[n, 3, 227, 227]`` to logits ``[n, classes]``."""
        x = self.pool1(self.norm1(self.relu1(self.conv1(x))))
        x = self.pool2(self.norm2(self.relu2(self.conv2(x))))
        x = self.relu4(self.conv4(self.relu3(self.conv3(x))))
        x = torch.flatten(self.pool5(self.relu5(self.conv5(x))), 1)
        x = self.drop7(self.relu7(self.fc7(self.drop6(self.relu6(self.fc6(x))))))
        return self.fc8(x)


def _make(groups: int, classes: int = 1000) -> nn.Module:
    return AlexNet(groups, classes)


_WORDS = {
    1: "AlexNet without filter groups (Ioannou et al. 2017, section 3)",
    2: "AlexNet as in the paper: two filter groups, local response normalisation (Krizhevsky et al. 2012)",
    4: "AlexNet with four filter groups (Ioannou et al. 2017, section 3)",
}
ENTRIES: dict[str, Entry] = {
    f"alexnet-groups{groups}": untrained(
        partial(_make, groups), (3, 227, 227), about, {"conv1.bias", "conv5.weight", "fc6.weight", "fc8.weight"}
    )
    for groups, about in _WORDS.items()
}
