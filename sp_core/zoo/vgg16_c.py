"""VGG-16 as in column C: its last convolution of each of the three deeper groups is 1 × 1.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1.
Columns A, B, D and E are torchvision's ``vgg11``, ``vgg13``, ``vgg16`` and ``vgg19``; this is torchvision's class with
other filters.
"""

from __future__ import annotations

from torch import nn

from sp_core.zoo.entry import Entry, untrained

# (channels, kernel) of each convolution; 0 is a pooling.
_COLUMN_C = (
    *((64, 3), (64, 3), 0, (128, 3), (128, 3), 0, (256, 3), (256, 3), (256, 1), 0),
    *((512, 3), (512, 3), (512, 1), 0, (512, 3), (512, 3), (512, 1), 0),
)


def _make(classes: int = 1000) -> nn.Module:
    from torchvision.models import VGG

    layers: list[nn.Module] = []
    channels = 3
    for layer in _COLUMN_C:
        if isinstance(layer, int):
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(channels, layer[0], layer[1], padding=layer[1] // 2)
        layers += [conv, nn.ReLU(inplace=True)]
        channels = layer[0]
    return VGG(nn.Sequential(*layers), num_classes=classes)


ENTRIES: dict[str, Entry] = {
    "vgg16-c": untrained(
        _make,
        (3, 224, 224),
        "VGG-16, column C: three of its filters are 1 × 1 (Simonyan and Zisserman 2015)",
        {"features.2.weight", "features.28.weight", "classifier.6.weight"},
    )
}
