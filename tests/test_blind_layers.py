"""Layers that are the same for every image: nothing drives them, and every engine says so or passes them over."""

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.effective_field import effective_field
from sp_core.nearest.plan import default_layers
from sp_core.receptive_field import blind_layers


class Placed(nn.Module):
    """What it sees plus a learnt map that goes through a convolution, as places and dynamic kernels do."""

    def __init__(self):
        super().__init__()
        self.see, self.place = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 8, 1)
        self.table, self.act, self.head = nn.Parameter(torch.randn(1, 2, 16, 16)), nn.ReLU(), nn.Conv2d(8, 4, 3)

    def forward(self, image):
        return self.head(self.act(self.see(image) + self.place(self.table))).mean((2, 3))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return sp.Network(Placed(), name="placed", input_size=(3, 16, 16))


def test_they_are_found(net):
    assert blind_layers(net) == {"place"}
    assert blind_layers(sp.load("bundled:textures-resnet", device="cpu")) == set()


def test_an_index_and_features_are_of_the_other_layers(net, tmp_path):
    images = sp.datasets.open("textures", count=40)
    *_, last = sp.build_patch_index(net, images, tmp_path / "index")
    assert (last.done, sp.PatchIndex(tmp_path / "index").layers) == (40, ("see", "act", "head"))
    assert "place" not in default_layers(net)
    for build in (sp.build_patch_index, sp.build_features):
        with pytest.raises(sp.SpError, match="place is the same for every image"):
            list(build(net, images, tmp_path / "other", layers=["place"]))


def test_their_maps_come_once_an_image(net):
    images = torch.rand(3, 3, 16, 16)
    maps = sp.activations(net, images, ["place", "see"])
    assert maps["place"].shape == maps["see"].shape == (3, 8, 16, 16)
    assert torch.equal(maps["place"][0], maps["place"][2])


def test_what_asks_which_pixels_drive_them_answers_in_a_sentence(net):
    with pytest.raises(sp.SpError, match="sees no pixel"):
        effective_field(net, "place", torch.rand(4, 3, 16, 16))
    with pytest.raises(sp.SpError, match="does not depend on the image"):
        sp.backprop(net, torch.rand(2, 3, 16, 16), "place:0", "guided")
    *_, last = sp.ascend(net, ["place:0", "place:1", "see:1"], sp.AscentSettings(steps=3))
    assert ["did not take off" in message for message in last.messages] == [True, True, False]
