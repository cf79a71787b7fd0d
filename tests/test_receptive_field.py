"""Receptive fields against numbers from the literature, and against what really reaches a unit."""

import weakref

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from sp_core import receptive_field as module_under_test
from sp_core.capture import capture
from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.receptive_field import Box, clipped_boxes, field_of, receptive_fields


def network(module, size=(3, 20, 23)):
    return Network(module.double(), input_size=size)


def truth(net, names):
    """What reaches each unit, by force: one row (then column) of not-a-numbers at a time, which arithmetic spreads."""
    channels, height, width = net.input_size
    boxes = {}
    for axis, extent in ((2, height), (3, width)):
        images = torch.rand(extent, channels, height, width, dtype=torch.float64)
        for k in range(extent):
            images.select(axis, k)[k] = torch.nan
        with torch.no_grad():
            maps = capture(net.clone(), images, names)
        for name, values in maps.items():
            reached = values.isnan()
            first = reached.int().argmax(0)
            last = extent - 1 - reached.flip(0).int().argmax(0)
            seen = reached.any(0)
            boxes.setdefault(name, []).extend([torch.where(seen, first, 0), torch.where(seen, last + 1, 0)])
    return {name: torch.stack(four) for name, four in boxes.items()}


def assert_exact(net, gates="strict", names=None):
    names = names or [layer.name for layer in net.layers]
    want = truth(net, names)
    for name in names:
        got = clipped_boxes(net, name, gates).expand_as(want[name])
        assert torch.equal(got.long(), want[name]), f"{name}: {(got != want[name]).sum()} of {got.numel()} differ"


class Residual(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, stride, 1)
        self.b = nn.Conv2d(channels, channels, 3, 1, 1)
        self.short = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.b(F.relu_(self.a(x))) + self.short(x))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)
        self.five = nn.Conv2d(3, 2, (5, 3), padding=(2, 1))
        self.last = nn.Conv2d(6, 6, 3, 2, 1, groups=3)
        self.mixed = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.mixed(self.last(torch.cat([self.one(x), self.three(x), self.five(x)], 1)))


class Shuffled(nn.Module):
    """Half of the channels go straight on, then both halves are interleaved, twice (ShuffleNet v2)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.halves = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, groups=4) for _ in range(2))
        self.end = nn.Identity()

    def forward(self, x):
        x = self.first(x)
        for conv in self.halves:
            keep, change = x.chunk(2, 1)
            x = torch.cat([keep, conv(change)], 1)
            n, c, h, w = x.shape
            x = self.end(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        return x


class Gate(nn.Module):
    def __init__(self, channels=4, expand=False):
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.fc, self.expand = nn.Conv2d(channels, channels, 1), expand

    def forward(self, x):
        x = self.conv(x)
        gate = torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))
        return self.after(x * (gate.expand_as(x) if self.expand else gate))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 4, 4, 2, 1)
        self.join = nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, x):
        up = self.up(self.down(x))[:, :, : x.shape[2], : x.shape[3]]
        return self.join(torch.cat([up, x], 1))


class Written(nn.Module):
    """Writes a part of a map in place, through a view of a view."""

    def __init__(self):
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 1, groups=4)

    def forward(self, x):
        out = torch.zeros(x.shape[0], 4, *x.shape[2:], dtype=x.dtype, device=x.device)
        out[:, 1:3][:, :, 2:9] = self.conv(x)[:, 1:3, 2:9]
        out[:, 3].copy_(x[:, 0])
        out.mul_(2)
        return self.end(out)


class Padded(nn.Module):
    """ResNet's option A: every second pixel, and new channels of zeros."""

    def __init__(self):
        super().__init__()
        self.end = nn.Identity()

    def forward(self, x):
        return self.end(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)))


class Chosen(nn.Module):
    """Channels picked by indices that are buffers: CondenseNet's way, and by indexing, twice along two axes."""

    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)
        self.register_buffer("order", torch.tensor([3, 0, 2, 1]))
        self.register_buffer("rows", torch.tensor([[0], [5]]))
        self.picked, self.turned, self.end = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x):
        x = self.picked(torch.index_select(torch.cat([self.one(x), self.three(x)], 1), 1, self.order))
        return self.end(self.turned(x[:, self.order])[:, :, self.rows, self.order])


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


CONVS = {
    "plain": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 5, 2, 2), nn.MaxPool2d(3, 2, 1)],
    "asymmetric": [nn.Conv2d(3, 4, (1, 7), (2, 1), (0, 3)), nn.Conv2d(4, 4, (5, 2), (1, 3))],
    "dilated": [nn.Conv2d(3, 4, 3, 1, 4, dilation=4), nn.Conv2d(4, 4, 2, 2, 3, dilation=3)],
    "ceil_mode": [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.Conv2d(3, 3, 3, padding=1),
    ],
    "stride over kernel": [nn.Conv2d(3, 4, 2, 5, 1), nn.Conv2d(4, 4, 1, 3)],
    "padding over kernel": [nn.Conv2d(3, 4, 1, 1, 2), nn.Conv2d(4, 4, 2, padding=3), nn.Conv2d(4, 4, 3)],
    "dilated pool": [nn.MaxPool2d(3, 1, 1, dilation=2), nn.Conv2d(3, 4, 3, groups=1)],
    "adaptive": [nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((4, 5)), nn.AdaptiveMaxPool2d(2)],
    "reflect": [nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect"), nn.Conv2d(4, 4, 3)],
    "replicate": [nn.ReplicationPad2d((3, 1, 0, 2)), nn.Conv2d(3, 4, 3)],
    "circular": [nn.Conv2d(3, 4, 5, padding=2, padding_mode="circular"), nn.Conv2d(4, 4, 3)],
    "zero pad and crop": [nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(3, 4, 3), nn.ZeroPad2d(-2), nn.Conv2d(4, 4, 3)],
    "depthwise": [nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 6, 3, 2, groups=6), nn.BatchNorm2d(6), nn.Hardswish()],
    "transposed": [nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 4, 3, 2), nn.ConvTranspose2d(4, 4, 2, 3, 1, 1)],
    "transposed with holes": [nn.ConvTranspose2d(3, 4, 2, 4), nn.Conv2d(4, 2, 3, 2)],
    "nearest": [nn.Conv2d(3, 4, 3, 2), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)],
    "nearest to a size": [nn.Conv2d(3, 4, 3, 2), nn.Upsample(size=(13, 17)), nn.Conv2d(4, 4, 3)],
    "pixel shuffle": [nn.Conv2d(3, 8, 3, 2), nn.PixelShuffle(2), nn.PixelUnshuffle(2)],
    "group norm": [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)],
    "instance norm": [nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 3, groups=4)],
    "flip and roll": [Lambda(lambda x: x.flip(3)), nn.Conv2d(3, 4, 3), Lambda(lambda x: x.roll((2, -3), (2, 3)))],
    "channels last": [Lambda(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(3), nn.Linear(3, 5), nn.GELU()],
    "unfold": [nn.Conv2d(3, 4, 3, 2), nn.Unfold(3, padding=1, stride=2)],
    "residual": [
        nn.Conv2d(3, 4, 3),
        Residual(4),
        Residual(4, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ],
    "flatten": [nn.Conv2d(3, 4, 5, 4), nn.Flatten(), nn.Dropout(), nn.Linear(80, 7), nn.Linear(7, 3)],
    "glu": [nn.Conv2d(3, 4, 3), nn.GLU(1), nn.PReLU(), nn.Softmax(1), nn.LocalResponseNorm(2)],
    "branches": [Branches()],
    "shuffled": [Shuffled()],
    "gate": [Gate()],
    "expanded gate": [Gate(expand=True)],
    "decoder": [Decoder()],
    "written": [Written()],
    "chosen": [Chosen()],
    "option A": [Padded(), nn.Conv2d(6, 6, 3, groups=6)],
}


@pytest.mark.parametrize("name", CONVS)
def test_every_unit_of_every_channel_sees_exactly_its_box(name):
    assert_exact(network(nn.Sequential(*CONVS[name])))


@pytest.mark.parametrize(
    "resize",
    [
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(7, 9), mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=3, mode="bicubic"),
        nn.Upsample(size=(3, 4), mode="bilinear"),
    ],
    ids=str,
)
def test_neighbours_of_weight_zero_are_not_seen_when_resizing(resize):
    # Not-a-number times a weight of zero is not a number, so here the truth is where the gradient is not zero.
    net = network(nn.Sequential(nn.Conv2d(3, 2, 3, 2), resize), (3, 11, 12))
    image = torch.rand(1, 3, 11, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net.module, image)[0, :, :, :, 0].abs().sum(3)  # [c, h, w, y, x]
    boxes = clipped_boxes(net, "1").expand(4, *jacobian.shape[:3])
    rows, columns = jacobian.sum(4) > 0, jacobian.sum(3) > 0
    for got, seen in ((boxes[:2], rows), (boxes[2:], columns)):
        size = seen.shape[-1]
        assert torch.equal(got[0].long(), seen.int().argmax(-1))
        assert torch.equal(got[1].long(), size - seen.flip(-1).int().argmax(-1))


FAMILIES = ["resnet18", "squeezenet1_1", "googlenet", "shufflenet_v2_x0_5", "mobilenet_v3_small"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_unit_of_torchvision_families(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    module = getattr(torchvision.models, name)(weights=None, **options).eval()
    net = Network(module.double(), input_size=(3, 36, 33))
    names = [layer.name for layer in net.layers if layer.is_map and layer.kind in {"Conv2d", "MaxPool2d", "Sequential"}]
    assert_exact(net, names=names[:: max(1, len(names) // 20)])


# Known sizes of the ends of stages: Araujo, Norris & Sim 2019 for alexnet and vgg, in which torchvision's agree with
# the original; the others from the gradient's support.
KNOWN = {
    "alexnet": {"features.0": 11, "features.2": 19, "features.3": 51, "features.5": 67, "features": 195},
    "vgg11": {"features.2": 4, "features.5": 10, "features.10": 30, "features.15": 70, "features.20": 150},
    "vgg16": {"features.4": 6, "features.9": 16, "features.16": 44, "features.23": 100, "features.30": 212},
    "resnet18": {"conv1": 7, "maxpool": 11, "layer1": 43, "layer2": 99, "layer3": 211, "layer4": 435},
    "resnet50": {"layer1": 35, "layer2": 91, "layer3": 267, "layer4": 427},
    "resnet152": {"layer1": 35, "layer2": 155, "layer3": 1291, "layer4": 1451},
    "squeezenet1_0": {"features.12": 155},
    "googlenet": {"inception3a": 43, "inception4e": 235, "inception5b": 379},
    "inception_v3": {"Conv2d_4a_3x3": 23, "Mixed_6e": 927, "Mixed_7c": 1311},
}


def of_torchvision(name):
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    with torch.device("meta"):
        module = getattr(torchvision.models, name)(weights=None, **options)
    size = 299 if name == "inception_v3" else 224
    return Network(module.eval(), name=name, input_size=(3, size, size))


@pytest.mark.parametrize("name", KNOWN)
def test_known_sizes(name):
    fields = receptive_fields(of_torchvision(name))
    assert {layer: fields[layer].size for layer in KNOWN[name]} == KNOWN[name]
    assert all(fields[layer].status == "complete" for layer in KNOWN[name])


def test_resnet_is_centred_and_its_pool_sees_the_whole_image():
    fields = receptive_fields(of_torchvision("resnet50"))
    for name in ("layer1", "layer2", "layer3", "layer4"):
        rf = fields[name]
        assert rf.start == -(rf.size - 1) // 2  # P = (r − 1) / 2
    assert [fields[f"layer{k}"].stride for k in (1, 2, 3, 4)] == [4, 8, 16, 32]
    for name in ("avgpool", "fc"):
        assert (fields[name].size, fields[name].stride, fields[name].start) == (224, 0, 0)
        assert fields[name].status == "whole image"


def test_channels_may_differ():
    fire = receptive_fields(of_torchvision("squeezenet1_0"))["features.12"]
    assert (fire.size, sorted(set(fire.per_channel)), len(fire.per_channel)) == (155, [123, 155], 512)
    assert sorted(set(receptive_fields(of_torchvision("googlenet"))["inception5b"].per_channel)) == [315, 379]
    dense = receptive_fields(of_torchvision("densenet121"))["features.transition1.norm"]
    assert (dense.size, min(dense.per_channel), max(dense.per_channel)) == (59, 11, 59)
    assert receptive_fields(of_torchvision("resnet18"))["layer1"].per_channel is None


def test_axes_that_differ_are_pairs():
    rf = receptive_fields(network(nn.Sequential(nn.Conv2d(3, 4, (3, 1), (1, 2), (1, 0)), nn.Conv2d(4, 4, (1, 5)))))["1"]
    assert (rf.size, rf.stride, rf.start) == ((3, 9), (1, 2), (-1, 0))
    assert rf.box(2, 3) == Box(1, 4, 6, 15)


@pytest.mark.parametrize("name", ["plain", "asymmetric", "dilated", "ceil_mode", "depthwise", "branches", "shuffled"])
def test_the_law_clipped_is_the_box_of_units_inside(name):
    net = network(nn.Sequential(*CONVS[name]), (3, 64, 57))
    for layer in net.layers:
        rf = receptive_fields(net)[layer.name]
        assert rf.status == "complete"
        channels, h, w = layer.output_shape
        for channel in (0, channels - 1):
            field = field_of(net, Unit(layer.name, channel, (h // 2, w // 3)))
            assert field.unclipped == rf.box(h // 2, w // 3, channel)
            assert field.clipped == field.unclipped.clip(64, 57)


def test_units_at_the_border_are_clipped():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1)), (3, 32, 32))
    field = field_of(net, "1:2@0,7")
    assert (field.unclipped, field.clipped) == (Box(-5, 6, 23, 34), Box(0, 6, 23, 32))
    assert field.exact
    assert field_of(net, "1:2").clipped == field_of(net, "1:2@4,4").clipped


def test_a_unit_in_the_padding_sees_nothing():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 1, padding=1)))
    assert field_of(net, "0:0@0,5").clipped.is_empty
    assert field_of(net, "0:0@1,5").clipped == Box(0, 1, 4, 5)


def test_gates_are_held_or_counted():
    net = network(nn.Sequential(Gate()))
    local, strict = receptive_fields(net), receptive_fields(net, gates="strict")
    assert (local["0.after"].size, local["0.after"].status) == (5, "complete")
    assert "held constant" in local["0.after"].note
    assert (strict["0.after"].size, strict["0.after"].status) == ((20, 23), "whole image")
    assert receptive_fields(network(nn.Sequential(Gate(expand=True))))["0.after"].size == 5
    # A learned scale is a constant, no gate: nothing is held.
    scaled = receptive_fields(network(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))))
    assert scaled["1"].note == ""


def test_enlarged_maps_say_that_they_are_uneven():
    rf = receptive_fields(network(nn.Sequential(*CONVS["nearest"])))
    assert (rf["1"].stride, rf["1"].status, rf["1"].size) == (1, "partial", 3)
    assert "one step further" in rf["1"].note
    double = receptive_fields(network(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 1))))
    assert (double["1"].stride, double["1"].size) == (0.5, 1)
    boxes = [double["1"].box(0, x) for x in range(4)]
    assert [box.x0 for box in boxes] == [0, 0, 1, 1]


def test_a_field_of_more_than_twice_the_larger_image_is_not_taken_for_the_whole():
    module = nn.Sequential(*[nn.Conv2d(1, 1, 301, padding=150) for _ in range(12)])
    rf = receptive_fields(Network(module, input_size=(1, 32, 32)))["11"]
    assert (rf.size, rf.stride, rf.start, rf.status) == (3601, 1, -1800, "complete")


def test_a_branch_that_sees_everything_is_told_apart_by_channel():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.end = nn.Identity()

        def forward(self, x):
            return self.end(torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1))

    rf = receptive_fields(network(Pyramid(), (3, 9, 12)))["end"]
    assert rf.status == "whole image"
    assert rf.per_channel == (1, 1, 1, (9, 12), (9, 12), (9, 12))
    assert "3 of 6 channels" in rf.note


def test_a_strip_that_is_pooled_moves_along_one_axis_only():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), Lambda(lambda x: x.mean(3, keepdim=True)), nn.Conv2d(4, 4, (3, 1)))
    rf = receptive_fields(network(module, (3, 21, 33)))["2"]
    assert (rf.size, rf.stride, rf.start) == ((7, 33), (2, 0), 0)
    assert "along one axis" in rf.note.lower()


def test_an_adaptive_pool_that_changes_nothing_keeps_the_law():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten()), (3, 8, 8))
    fields = receptive_fields(net)
    assert (fields["1"].size, fields["1"].stride, fields["1"].start) == (3, 2, -1)
    assert fields["2"].status == "whole image"
    uneven = receptive_fields(network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((4, 5)))))["1"]
    assert uneven.status == "partial"
    assert "whatever the image" in uneven.note


def test_a_network_that_takes_one_size_only_says_that_its_fields_are_clipped():
    class OneSize(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 21, padding=10)

        def forward(self, x):
            assert x.shape[2] == 20, "one size only"
            return self.b(self.a(x))

    fields = receptive_fields(network(OneSize(), (3, 20, 20)))
    assert (fields["a"].size, fields["a"].status) == (3, "complete")
    assert fields["b"].status == "partial"
    assert "clips it" in fields["b"].note


def test_an_operation_without_a_rule_is_named_and_bounded():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 3), Lambda(lambda x: torch.fft.fft2(x).abs()), nn.Identity()))
    rf = receptive_fields(net)["2"]
    assert rf.status == "partial"
    assert "_fft" in rf.note
    assert field_of(net, "2:0@0,0").clipped == Box(0, 20, 0, 23)


def test_a_network_that_looks_at_values_is_followed_with_real_ones():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if float(x.sum()) <= 0 else x

    net = network(Looks())
    assert receptive_fields(net)["conv"].size == 3
    assert not any(hasattr(tensor, "_sp_node") for tensor in [*net.module.parameters(), *net.module.buffers()])


def test_a_layer_that_ignores_the_image_has_no_field():
    net = network(nn.Sequential(Lambda(torch.ones_like), nn.Conv2d(3, 4, 3)))
    assert receptive_fields(net)["1"].status == "unavailable"
    with pytest.raises(SpError, match="Layer 1 does not depend on the image"):
        clipped_boxes(net, "1")


def test_mistakes_are_sentences():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(SpError, match="`gates` must be 'local' or 'strict'; got 'open'"):
        receptive_fields(net, gates="open")
    with pytest.raises(SpError, match="channels 0 to 3; got 9"):
        field_of(net, "0:9")


def test_nothing_is_left_on_the_network_and_nothing_keeps_it():
    net = network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)))
    before = [set(vars(part)) for part in net.module.modules()]
    receptive_fields(net)
    assert [set(vars(part)) for part in net.module.modules()] == before
    assert not any(part._forward_hooks for part in net.module.modules())
    gone = weakref.ref(net)
    del net
    assert gone() is None or gone() not in module_under_test._FOUND


def test_boxes_are_slices():
    box = Box(-3, 4, 2, 9)
    assert (box.height, box.width, box.is_empty) == (7, 7, False)
    assert box.clip(5, 5) == Box(0, 4, 2, 5)
    assert box.clip(5, 1).is_empty


def test_units_in_the_padding_do_not_hide_those_further_in():
    rf = receptive_fields(network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=100), nn.Conv2d(4, 4, 1)), (3, 24, 24)))["1"]
    assert (rf.size, rf.stride, rf.start, rf.status) == (3, 1, -100, "complete")


def test_a_map_of_which_one_unit_alone_sees_the_image_has_no_stride_to_read():
    layers = nn.Sequential(
        nn.AvgPool2d(3, 2, 1),
        nn.ConvTranspose2d(3, 6, 3),
        nn.Conv2d(6, 6, (3, 1), (1, 2), 2, groups=6),
        nn.Conv2d(6, 4, 1, 2, 2, padding_mode="circular"),
        nn.Conv2d(4, 8, 1, (1, 2), 1, groups=4, padding_mode="circular"),
    )
    fields = receptive_fields(Network(layers, input_size=(3, 17, 17)))
    assert (fields["4"].size, fields["4"].stride, fields["4"].status) == ((11, 7), (4, 16), "complete")


def test_behind_a_gate_units_in_the_padding_see_nothing_and_all_others_the_whole():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.see, self.pad = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (1, 3), padding=2)

        def forward(self, image):
            x = self.see(image[:, :, 1:])
            return self.pad(x * x.mean((2, 3), keepdim=True).sigmoid())

    field = receptive_fields(Network(Gated(), input_size=(3, 12, 12)), "strict")["pad"]
    assert (field.status, field.size, field.stride, field.start) == ("whole image", (11, 12), 0, (1, 0))
