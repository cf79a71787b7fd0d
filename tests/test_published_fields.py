"""Receptive fields as papers and their authors' programs print them."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import sp_core as sp
from sp_core.network import Network
from sp_core.receptive_field import receptive_fields

# (network, layer): size, stride, and the padding on the left, which is minus the start (None: the original pads as
# TensorFlow does, one pixel more on the right, the network here on both sides).
# Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill, table 1; their
# alexnet_v2 does not pad its first layer. Their
# Inception v2, v4, Inception-ResNet v2 and MobileNet v1 0.75 are not among the networks here.
DISTILL = {
    ("torchvision:alexnet", "features.12"): (195, 32, None),
    ("torchvision:vgg16", "features.30"): (212, 32, 90),
    ("zoo:mobilenet-v1", "separable13"): (315, 32, None),
    ("zoo:mobilenet-v1-0.75", "separable13"): (315, 32, None),
    ("torchvision:inception_v3", "Mixed_7c"): (1311, 32, None),
    ("zoo:resnet50-caffe", "res5.2"): (483, 32, 239),
    ("zoo:resnet101-caffe", "res5.2"): (1027, 32, 511),
    ("zoo:resnet152-caffe", "res5.2"): (1507, 32, 751),
    ("zoo:resnet200-caffe", "res5.2"): (1763, 32, 879),
}
# The table of google-research/receptive_field (vgg_a, vgg_16, their pools) and its ends of blocks for ResNet v1.
GOOGLE = {
    **{
        ("torchvision:vgg11", f"features.{k}"): row
        for k, row in {2: (4, 2, 1), 5: (10, 4, 3), 10: (30, 8, 11), 15: (70, 16, 27), 20: (150, 32, 59)}.items()
    },
    **{
        ("torchvision:vgg16", f"features.{k}"): row
        for k, row in {4: (6, 2, 2), 9: (16, 4, 6), 16: (44, 8, 18), 23: (100, 16, 42), 30: (212, 32, 90)}.items()
    },
    ("torchvision:vgg13", "features.24"): (156, 32, 62),
    ("torchvision:vgg19", "features.36"): (268, 32, 118),
    ("zoo:resnet50-caffe", "res2.2"): (35, 4, 15),
    ("zoo:resnet50-caffe", "res3.3"): (99, 8, 47),
    ("zoo:resnet50-caffe", "res4.5"): (291, 16, 143),
}
# Sizes alone, by the same formula (Distill, equation 2), where papers and model pages give no more.
SIZES = {
    "torchvision:alexnet": dict(zip((0, 2, 3, 5, 6, 8, 10, 12), (11, 19, 51, 67, 99, 131, 163, 195), strict=True)),
    "zoo:mobilenet-v1": dict(zip(range(1, 14), (7, 11, 19, 27, 43, 59, 91, 123, 155, 187, 219, 251, 315), strict=True)),
    "zoo:lenet5-1998": {"c1": 5, "s2": 6, "c3": 14, "s4": 16, "c5": 32},
    "zoo:wrn-16-1": {"block3": 53},
    "zoo:wrn-28-1": {"block3": 109},
    "zoo:wrn-40-1": {"block3": 165},
    "zoo:googlenet-bvlc": {"inception_5b": 715},
    "torchvision:densenet121": {f"features.denseblock{k + 1}": size for k, size in enumerate((59, 255, 1031, 2071))},
    "torchvision:resnet18": {f"layer{k + 1}": size for k, size in enumerate((43, 99, 211, 435))},
    "torchvision:resnet34": {f"layer{k + 1}": size for k, size in enumerate((59, 179, 547, 899))},
    "torchvision:resnet50": {f"layer{k + 1}": size for k, size in enumerate((35, 91, 267, 427))},
    "torchvision:resnet101": {f"layer{k + 1}": size for k, size in enumerate((35, 91, 811, 971))},
    "torchvision:resnet152": {f"layer{k + 1}": size for k, size in enumerate((35, 155, 1291, 1451))},
}
PREFIX = {"torchvision:alexnet": "features.", "zoo:mobilenet-v1": "separable"}


def network(name):
    kind, short = name.split(":")
    with torch.device("meta"):
        if kind == "zoo":
            return Network(sp.zoo.create(short), input_size=sp.zoo.entry(short).input_size)
        options = {"init_weights": False} if short in {"googlenet", "inception_v3"} or short[:3] == "vgg" else {}
        side = 299 if short == "inception_v3" else 224
        return Network(torchvision.models.get_model(short, weights=None, **options), input_size=(3, side, side))


@pytest.mark.parametrize("name", sorted({name for name, _ in DISTILL | GOOGLE} | SIZES.keys()))
def test_published_fields(name):
    net = network(name)
    fields = receptive_fields(net)
    for (of, layer), (size, stride, padding) in (DISTILL | GOOGLE).items():
        if of == name:
            rf = fields[layer]
            assert (rf.size, rf.stride, rf.status) == (size, stride, "complete"), layer
            assert padding is None or rf.start == -padding, layer
    for layer, size in SIZES.get(name, {}).items():
        assert fields[f"{PREFIX.get(name, '')}{layer}"].size == size, layer
    if "torchvision:resnet" in name:  # both sides padded alike: P = (r - 1) / 2
        assert all(fields[f"layer{k}"].start == -(fields[f"layer{k}"].size - 1) // 2 for k in (1, 2, 3, 4))


# ---- The small graphs of google-research/receptive_field's own tests
class Meeting(nn.Module):
    """1×1 of stride 4 beside 3×3 and 1×1 of stride 2; ``same`` pads as TensorFlow does, else one pixel on the left."""

    def __init__(self, same=False, deeper=False):
        super().__init__()
        self.same, self.deeper = same, deeper
        self.left, self.right = nn.Conv2d(1, 1, 1, 4), nn.Sequential(nn.Conv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 1, 2))
        self.left_again, self.right_again = nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 3, 2)
        self.end = nn.ReLU()

    def padded(self, x):
        total = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[2:]]
        left = [side // 2 if self.same else 1 for side in total]
        right = [side - side // 2 if self.same else 0 for side in total]
        return F.pad(x, (left[1], right[1], left[0], right[0]))

    def forward(self, x):
        x = self.left(x) + self.right(self.padded(x))
        return self.end(self.left_again(x) + self.right_again(self.padded(x)) if self.deeper else x)


class Apart(nn.Module):
    """Branches of different strides, whose maps have one size at 8×8 only."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 1, 5, 2), nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
        self.end = nn.ReLU()

    def forward(self, x):
        return self.end(self.left(F.pad(x, (2, 1, 2, 1))) + self.right(x))


def law(module, side):
    net = Network(module, input_size=(1, side, side))
    rf = receptive_fields(net)[net.layers[-1].name]
    return rf.size, rf.stride, rf.start, rf.status, "isaligned" in rf.note


def test_aligned_graphs():
    assert law(Meeting(), 16) == (3, 4, -1, "complete", False)
    assert law(Meeting(same=True), 9) == (3, 4, -1, "complete", False)
    assert law(Meeting(deeper=True), 16) == law(Meeting(deeper=True, same=True), 17) == (11, 8, -5, "complete", False)
    rectangular = nn.Sequential(nn.Conv2d(1, 1, (3, 5), 2), nn.Conv2d(1, 1, (3, 1), 2))
    assert law(rectangular, 16) == ((7, 5), 4, 0, "complete", False)


def test_misaligned_graphs_are_said():
    assert law(Meeting(same=True), 8) == (3, 4, 0, "complete", True)
    assert law(Apart(), 8)[3] == "partial"  # neither a stride nor a centre of its own
    beside = nn.Conv2d(1, 2, 3, padding=1)

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = beside, nn.Conv2d(1, 2, 3), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.last(torch.cat([self.a(x), self.b(F.pad(x, (2, 0, 2, 0)))], 1))

    assert law(Beside(), 20) == (4, 1, -2, "complete", True)
    assert law(nn.Sequential(beside, nn.Conv2d(2, 1, 2)), 20)[4] is False
