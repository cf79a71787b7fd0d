"""The architectures of the literature that torchvision has right, under torchvision's names.

They are here so that one list holds all. A checkpoint of one is called by its torchvision name (``Entry.elsewhere``).
Not all are what a paper printed: ``alexnet`` is the single-tower network of 2014, ``googlenet`` has BatchNorm and 3 × 3
filters instead of 5 × 5, ``resnet50`` has its strides on the 3 × 3 convolutions. The paper's own are
``alexnet-groups2``, ``googlenet-bvlc`` and ``resnet50-caffe``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from sp_core.zoo.entry import Entry

_ABOUT = {
    "alexnet": "AlexNet with a single tower (Krizhevsky 2014, 'One weird trick')",
    **{f"vgg{depth}": f"VGG-{depth} (Simonyan and Zisserman 2015)" for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": f"ResNet-{depth} (He et al. 2016)" for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": "ResNeXt-50, 32 groups of 4 channels (Xie et al. 2017)",
    "resnext101_32x8d": "ResNeXt-101, 32 groups of 8 channels (Xie et al. 2017)",
    "resnext101_64x4d": "ResNeXt-101, 64 groups of 4 channels (Xie et al. 2017)",
    "wide_resnet50_2": "Wide ResNet-50-2 (Zagoruyko and Komodakis 2016)",
    "wide_resnet101_2": "Wide ResNet-101-2 (Zagoruyko and Komodakis 2016)",
    **{f"densenet{depth}": f"DenseNet-{depth} (Huang et al. 2017)" for depth in (121, 161, 169, 201)},
    "googlenet": "GoogLeNet with BatchNorm, without its side classifiers (Szegedy et al. 2015)",
    "inception_v3": "Inception v3 with its side classifier (Szegedy et al. 2016)",
    "squeezenet1_0": "SqueezeNet (Iandola et al. 2016)",
    "mobilenet_v2": "MobileNet v2 (Sandler et al. 2018)",
    "shufflenet_v2_x0_5": "ShuffleNet v2 with half of its channels (Ma et al. 2018)",
    "shufflenet_v2_x1_0": "ShuffleNet v2 (Ma et al. 2018)",
    "shufflenet_v2_x1_5": "ShuffleNet v2 with 1.5 of its channels (Ma et al. 2018)",
    "shufflenet_v2_x2_0": "ShuffleNet v2 with twice its channels (Ma et al. 2018)",
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": True, "init_weights": False},
}


def _make(name: str, classes: int = 1000) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=classes, **_OPTIONS.get(name, {}))


ENTRIES: dict[str, Entry] = {
    name: Entry(
        partial(_make, name),
        (3, 299, 299) if name == "inception_v3" else (3, 224, 224),
        (),
        (),
        (),
        f"{about}, as torchvision has it",
        elsewhere=f"torchvision:{name}",
    )
    for name, about in _ABOUT.items()
}
