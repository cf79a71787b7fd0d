"""Layers that keep their channels last, as inside ConvNeXt's blocks: told apart, measured, and refused by name."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import Permute

import sp_core as sp
from sp_core.effective_field import effective_field
from sp_core.feature_maps import feature_maps_of, shown_layers
from sp_core.nearest.plan import default_layers, describe
from sp_core.patches.plan import identify
from sp_core.receptive_field import clipped_boxes, field_of, nest
from tests.test_receptive_field import truth

LAST = ("1", "2", "3", "4")
MESSAGE = r"Layer 3 puts out \[9, 11, 8\], with its channels last.*choose another layer, such as 0\."


class Three:
    """A data set of three images that nobody looks at."""

    name, fingerprint, classes = "three", "0", ()

    def __len__(self):
        return 3


@pytest.fixture
def net():
    """A ConvNeXt block's way: [c, h, w], then [h, w, c], then [c, h, w] again."""
    turned = [Permute([0, 2, 3, 1]), nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), Permute([0, 3, 1, 2])]
    module = nn.Sequential(nn.Conv2d(3, 4, 4, 2), *turned, nn.Conv2d(8, 5, 3, 2, 1))
    return sp.Network(module.double(), name="turned", input_size=(3, 20, 24))


def test_the_trace_tells_which_axis_holds_the_channels(net):
    assert tuple(layer.name for layer in net.layers if layer.channels_last) == LAST
    assert net.layer("3").channels == 8
    assert not net.layer("3").is_map
    assert net.layer("5").is_map


def test_it_tells_without_modules_that_turn_and_where_the_network_takes_one_size():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 3), nn.LayerNorm(6), nn.Linear(6 * 6 * 6, 2)

        def forward(self, x):
            return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)).flatten(1))

    found = {layer.name: layer.channels_last for layer in sp.Network(Functional(), input_size=(3, 8, 8)).layers}
    assert found == {"conv": False, "norm": True, "fc": False}


def test_the_survey_of_fields_leaves_the_same_layers_as_the_trace(net):
    sp.receptive_fields(net)
    assert net.layers == sp.Network(net.module, input_size=net.input_size).layers


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "densenet121", "squeezenet1_0", "shufflenet_v2_x0_5"])
def test_maps_of_other_networks_stay_maps(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    net = sp.Network(torchvision.models.get_model(name, weights=None, **options), input_size=(3, 96, 96))
    assert not any(layer.channels_last for layer in net.layers)


def test_convnext_keeps_its_channels_last_between_its_two_turns():
    net = sp.Network(torchvision.models.convnext_tiny(), input_size=(3, 64, 64))
    last = {layer.name.rsplit(".", 1)[1] for layer in net.layers if layer.channels_last}
    assert last == {"1", "2", "3", "4", "5"}
    assert sum(layer.channels_last for layer in net.layers) == 18 * 5
    assert {layer.kind for layer in net.layers if layer.channels_last} == {"Permute", "LayerNorm", "Linear", "GELU"}


def test_boxes_are_what_is_measured_in_either_order(net):
    measured = truth(net, [layer.name for layer in net.layers])
    for name, boxes in measured.items():
        assert torch.equal(clipped_boxes(net, name).expand_as(boxes).long(), boxes), name
    for name in ("0", "5", "6"):
        _, h, w = net.layer(name).output_shape
        for y, x in [(0, 0), (h - 1, w - 1), (1, 3)]:
            box = field_of(net, sp.Unit(name, 2, (y, x))).clipped
            assert [box.y0, box.y1, box.x0, box.x1] == measured[name][:, 2, y, x].tolist()


def test_the_way_to_a_unit_passes_them_by(net):
    steps = nest(net, "6", (1, 4))
    assert [step.layer for step in steps] == ["0", "6"]
    assert sp.receptive_fields(net)["3"].size == 4, "the size of their fields is known all the same"


def test_units_of_them_are_refused_by_name(net):
    image = torch.rand(1, 3, 20, 24, dtype=torch.float64)
    for ask in (
        lambda: net.check(sp.Unit("3", 0)),
        lambda: field_of(net, "3:1@2,2"),
        lambda: nest(net, "3"),
        lambda: effective_field(net, "3", image),
        lambda: feature_maps_of(net, "3", image),
        lambda: sp.backprop(net, image, "3:1", "gradient"),
        lambda: sp.attribute(net, image, "6:1", "grad_cam", layer="3"),
        lambda: next(iter(sp.ascend(net, "3:1"))),
        lambda: sp.dream(net, image[0], sp.DreamSettings(target="3"), guide=image[0]),
        lambda: identify(net, Three(), 9, ["0", "3"], None),
        lambda: describe(net, Three(), ["0", "3"]),
    ):
        with pytest.raises(sp.SpError, match=MESSAGE):
            ask()


def test_what_looks_at_every_layer_passes_them_by(net):
    assert not {layer.name for layer in shown_layers(net)} & set(LAST)
    assert not {row["name"] for row in identify(net, Three(), 9, None, None)["layers"]} & set(LAST)
    assert not set(default_layers(net)) & set(LAST)
