"""The measured field: against gradients written out, and against what must hold."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sp_core.cli import main
from sp_core.effective_field import effective_field, initialised, textures
from sp_core.errors import SpError
from sp_core.figures import fields as figures
from sp_core.network import Network
from sp_core.receptive_field import Box, nest, receptive_fields


def linear_net(depth=1, size=(1, 31, 31)):
    convs = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)]
    for conv in convs:
        conv.weight.data = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    return Network(nn.Sequential(*convs).double(), input_size=size)


def test_box_filters_give_the_power_of_their_convolution():
    # Luo et al. 2016, section 2.1: with equal weights the gradient is the n-fold convolution of the kernel.
    depth = 6
    field = effective_field(linear_net(depth), f"{depth - 1}", torch.rand(3, 1, 31, 31))
    line = np.ones(1)
    for _ in range(depth):
        line = np.convolve(line, np.full(3, 1 / 3))
    want = np.zeros(31)
    want[15 - depth : 16 + depth] = line
    gradient = np.outer(want, want)
    np.testing.assert_allclose(field.energy.numpy(), gradient**2 / (gradient**2).sum(), atol=1e-12)
    # The gradient is nearly a Gaussian of variance n · 2/3, its square one of half that.
    assert field.sigma[0] == pytest.approx((depth * 2 / 3 / 2) ** 0.5, rel=0.05)  # six filters, not infinitely many
    assert (field.centre, field.position, field.images) == (pytest.approx((15, 15)), (15, 15), 3)
    assert field.box == Box(15 - depth, 16 + depth, 15 - depth, 16 + depth)
    assert 0 < field.share < 0.5


def test_energy_stays_in_the_theoretical_box_and_sums_to_one():
    module = nn.Sequential(nn.Conv2d(3, 6, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 4, 3, padding=1))
    net = Network(module, input_size=(3, 40, 36), mean=(0.5,) * 3, std=(0.2,) * 3)
    for channel in (None, 2):
        field = effective_field(net, "3", torch.rand(5, 3, 40, 36), channel=channel, position=(2, 4))
        inside = field.energy[field.box.y0 : field.box.y1, field.box.x0 : field.box.x1]
        assert float(inside.sum()) == pytest.approx(1)
        assert float(field.energy.sum()) == pytest.approx(1)


def test_random_signs_agree_with_all_channels_one_by_one():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(1, 3, 3, bias=False)).double(), input_size=(1, 5, 5))
    images = torch.rand(4000, 1, 5, 5, dtype=torch.float64)
    together = effective_field(net, "0", images, batch=1000).energy
    weights = net.module[0].weight[:, 0].double()  # the gradient of channel c at the middle is its filter
    want = torch.zeros(5, 5, dtype=torch.float64)
    want[1:4, 1:4] = weights.square().sum(0)
    assert torch.allclose(together, want / want.sum(), atol=0.02)


def test_the_batch_size_does_not_matter():
    net, images = linear_net(2), torch.rand(5, 1, 31, 31)
    a, b = (effective_field(net, "1", images, channel=0, batch=batch).energy for batch in (1, 5))
    assert torch.allclose(a, b)


def test_dead_units_and_vectors_are_said():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3))
    module[0].weight.data.zero_()
    module[0].bias.data.fill_(-1)
    net = Network(module, input_size=(1, 8, 8))
    with pytest.raises(SpError, match="No gradient of unit 3,3 of 1, channel 0, arrives at these 2 images"):
        effective_field(net, "1", torch.rand(2, 1, 8, 8), channel=0)
    with pytest.raises(SpError, match="Layer 3 is a vector"):
        effective_field(net, "3", torch.rand(2, 1, 8, 8))
    with pytest.raises(SpError, match="no images"):
        effective_field(net, "1", torch.rand(0, 1, 8, 8))


def test_initialised_draws_new_weights_and_leaves_the_network_alone():
    torch.manual_seed(7)  # not the seed that is asked for below
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), input_size=(3, 8, 8), classes=None)
    before, generator = net.fingerprint, torch.get_rng_state()
    first, again, other = initialised(net), initialised(net), initialised(net, seed=1)
    assert first.fingerprint == again.fingerprint
    assert len({before, first.fingerprint, other.fingerprint}) == 3
    assert torch.equal(generator, torch.get_rng_state())
    assert Network(net.module, input_size=(3, 8, 8)).fingerprint == before

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x):
            return x * self.scale

    with pytest.raises(SpError, match=r"Own has weights \(scale\) but no rule|0 has weights \(scale\) but no rule"):
        initialised(Network(nn.Sequential(Own()), input_size=(3, 8, 8)))


def test_textures_are_what_the_network_sees():
    images = textures(Network(nn.Sequential(nn.Conv2d(1, 2, 3)), input_size=(1, 20, 24)), 3)
    assert images.shape == (3, 1, 20, 24)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def small_net():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 5, padding=2),
    )
    return Network(module, name="small", input_size=(3, 24, 20))


def test_nested_fields_lie_in_each_other_and_grow():
    steps = nest(small_net(), "4", (2, 3))
    assert [step.layer for step in steps] == ["0", "2", "3", "4"]
    assert [step.size for step in steps] == [3, 5, 7, 23]
    assert steps[-1].position == (2, 3)
    for inner, outer in itertools.pairwise(steps):
        a, b = inner.field.unclipped, outer.field.unclipped
        assert b.y0 <= a.y0 and a.y1 <= b.y1 and b.x0 <= a.x0 and a.x1 <= b.x1
    with pytest.raises(SpError, match="positions 0,0 to 5,4; got 9,0"):
        nest(small_net(), "4", (9, 0))


def test_figures_show_what_they_are_given():
    net = small_net()
    fields, steps = receptive_fields(net), nest(net, "4")
    picture = net.crop(Image.new("RGB", (30, 30)))
    plot = figures.nested(picture, steps)
    assert [frame.name for frame in plot.frames] == [step.layer for step in steps]
    assert "4 · 23 pixels" in plot.layout.title.text
    growth = figures.growth(fields, (24, 20), "2")
    assert list(growth.data[-2].y) == [3, 3, 5, 7, 23]
    assert figures.outgrown(fields, net) == "No field is larger than the image (24 pixels)."
    assert "From 4 on" in figures.outgrown(fields, Network(net.module, input_size=(3, 22, 20)))
    assert figures.pixels(fields["4"]) == "23 × 23 pixels"
    assert "4 pixels further" in figures.sentence(fields["4"], net.input_size)
    assert figures.table(net, fields)[2]["stride"] == "2"
    assert figures.still(picture, steps, 2).width >= 2 * 23
    measured = effective_field(net, "4", torch.rand(2, 3, 24, 20))
    assert figures.measured(measured, 2).size == (40, 48)
    assert len(figures.profile({"a": measured}).data) == 2


@pytest.mark.parametrize("verb", ["receptive-fields", "complexity"])
def test_verbs(verb, capsys):
    assert main([verb, "zoo:textures-alexnet", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    first = answer["layers"][0]
    assert (first["name"], first["kind"]) == ("features.0", "Conv2d")
    assert first["output"][0] == 64
    if verb == "complexity":
        assert answer["macs"] == sum(row["macs"] for row in answer["layers"] if "." in row["name"])
        assert answer["status"] == "complete"
    else:
        assert {"size", "stride", "start", "status", "per_channel"} <= set(first)
    assert main([verb, "zoo:textures-alexnet", "--leaves"]) == 0
    assert "features.0" in capsys.readouterr().out
