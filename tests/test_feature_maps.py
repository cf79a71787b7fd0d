"""Feature maps: where values lie on the image, how they are scaled and ordered, and the page."""

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

import sp_core as sp
from sp_core.feature_maps import FeatureMaps, feature_maps_of, seen_by_peak, shown_layers
from sp_core.figures import feature_maps as figures
from sp_core.receptive_field import Box
from tests import driver


def network(*parts: nn.Module, size: int = 33) -> sp.Network:
    return sp.Network(nn.Sequential(*parts), input_size=(3, size, size))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 2, 0), (3, 2, 1), (5, 4, 0), (7, 4, 3), (3, 1, 0)])
def test_every_value_stands_at_the_centre_of_its_field(kernel, stride, padding):
    net = network(nn.Conv2d(3, 4, kernel, stride, padding))
    maps = feature_maps_of(net, "0", torch.rand(3, 33, 33))
    laid, values = maps.over_image(2), maps.values[2]
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            centre_y, centre_x = (u * stride - padding + (kernel - 1) // 2 for u in (y, x))
            assert laid[centre_y, centre_x] == values[y, x]


def test_resizing_would_put_the_map_elsewhere():
    net = network(nn.Conv2d(3, 1, 1, 4))
    maps = feature_maps_of(net, "0", torch.rand(3, 33, 33))
    resized = nn.functional.interpolate(maps.values[None], (33, 33), mode="bilinear")[0, 0]
    assert (resized[::4, ::4] - maps.values[0]).abs().max() > 0.01
    assert torch.equal(maps.over_image(0)[::4, ::4], maps.values[0])


def test_channels_whose_fields_differ_are_laid_each_at_its_own_place():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.near, self.far = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, (3, 3), padding=(2, 0))
            self.join = nn.Identity()

        def forward(self, x):
            return self.join(torch.cat([self.near(x[:, :, :, :-2]), self.far(x)[:, :, :-2]], 1))

    net = sp.Network(Branches(), input_size=(3, 12, 12))
    maps = feature_maps_of(net, "join", torch.rand(3, 12, 12))
    assert torch.equal(maps.over_image(0)[5, 5], maps.values[0, 5, 5])
    assert torch.equal(maps.over_image(1)[5, 6], maps.values[1, 6, 5])


def test_the_peak_lies_in_its_own_field():
    net = sp.load("bundled:textures-vgg", device="cpu")
    image = sp.datasets.select(sp.datasets.open("textures", count=3), [2], net)
    odd = [name for name, field in sp.receptive_fields(net).items() if field.size in {3, 5, 7}]  # centres on pixels
    name = next(layer.name for layer in shown_layers(net) if layer.kind == "ReLU" and layer.name in odd)
    maps = feature_maps_of(net, name, image)
    assert maps.aligned and not maps.signed
    for channel in sorted(set(range(len(maps.values))) - set(maps.silent))[:8]:
        box, laid = seen_by_peak(net, maps, channel).clipped, maps.over_image(channel)
        assert laid[box.y0 : box.y1, box.x0 : box.x1].max() == laid.max()


def test_units_that_see_everything_have_no_place():
    net = network(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1))
    maps = feature_maps_of(net, "1", torch.rand(3, 33, 33))
    assert not maps.aligned
    assert torch.allclose(maps.over_image(1), maps.values[1].expand(33, 33))


def test_silent_maps_are_counted_and_order_and_limits_are_right():
    values = torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]], [[4.0, 0.0]], [[0.5, 0.5]]])
    maps = FeatureMaps("relu", values, (4, 4))
    assert maps.silent == (0,) and not maps.signed
    assert maps.order("index").tolist() == [0, 1, 2, 3]
    assert maps.order("mean").tolist() == [1, 2, 3, 0]
    assert maps.order("maximum").tolist() == [2, 1, 3, 0]
    assert maps.limits("map").tolist() == [1.0, 3.0, 4.0, 0.5]
    assert maps.limits("layer").tolist() == [4.0] * 4
    with pytest.raises(sp.SpError, match="`sort` must be"):
        maps.order("colour")


def test_one_stray_value_does_not_grey_a_map():
    values = torch.ones(1, 40, 40)
    values[0, 0, 0] = 1e6
    assert FeatureMaps("conv", values, (40, 40)).limits("map").item() == 1.0


def test_signed_maps_are_centred_at_zero_and_others_begin_there():
    signed = FeatureMaps("conv", torch.tensor([[[-1.0, 0.0, 1.0]]]), (3, 3))
    picture = np.asarray(figures.alone(signed, 0, 1.0))
    assert picture[0, 1].tolist() == [247, 247, 247] and picture[0, 0, 2] > picture[0, 0, 0]
    relu = FeatureMaps("relu", torch.tensor([[[0.0, 0.0, 1.0]]]), (3, 3))
    assert np.asarray(figures.alone(relu, 0, 1.0))[0, 0].tolist() == [68, 1, 84]


@pytest.mark.parametrize("shape", [(64, 224, 224), (2048, 7, 7), (512, 1, 1), (1, 8, 8), (3, 4, 60)])
def test_a_sheet_fits_the_page_and_holds_every_map(shape):
    sprite, width = figures.sheet(FeatureMaps("layer", torch.rand(shape), (224, 224)))
    assert sprite.count == shape[0] and width <= 720
    assert sprite.image.width * sprite.image.height <= 4e6


def test_a_sheet_is_in_the_order_asked_for():
    values = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    maps = FeatureMaps("relu", values, (4, 4))
    sprite, _ = figures.sheet(maps, order=maps.order("mean"))
    assert np.asarray(sprite.cut(0))[0, 0].tolist() == [253, 231, 37]
    assert np.asarray(sprite.cut(1))[0, 0].tolist() == [68, 1, 84]


def test_the_frame_is_where_the_field_is():
    framed = np.asarray(figures.frame(Image.new("RGB", (40, 40), "grey"), Box(10, 30, 5, 25)))
    changed = np.argwhere((framed != 128).any(2))
    assert changed.min(0).tolist() == [10, 5] and changed.max(0).tolist() == [29, 24]


def test_what_is_neither_maps_nor_a_vector_is_said():
    net = network(nn.Flatten(2))
    with pytest.raises(sp.SpError, match="neither maps nor a vector"):
        feature_maps_of(net, "0", torch.rand(3, 33, 33))
    assert shown_layers(net) == []


def opened(**state) -> AppTest:
    return driver.opened("feature_maps.py", **state)


def test_the_page_shows_maps_and_vectors():
    app = opened(net="bundled:textures-vgg")
    assert not app.exception and not app.error
    assert any("maps are zero on this picture" in caption.value for caption in app.caption)
    layers = app.selectbox("layer").options
    app.number_input("channel").set_value(3).run()
    assert app.subheader[0].value.startswith("Channel 3 of")
    app.selectbox("layer").set_value(layers[-1]).run()
    assert not app.exception and not app.error
    assert any(caption.value.startswith("A vector of 18.") for caption in app.caption)
