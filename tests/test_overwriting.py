"""Activations that overwrite what is read again: a network computes what its author's module computes."""

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.capture import activations
from sp_core.overwriting import needed_in_place


class Written(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.again = nn.ReLU(inplace=True), nn.ReLU6(inplace=True)
        self.drop = nn.Dropout(inplace=True)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


def ignored(net, x):
    x = net.conv(x)
    net.relu(x)
    return x


def summed(net, x):
    x = net.norm(net.conv(x))
    return x + net.relu(x)


def looked_at_through_a_view(net, x):
    x = net.conv(x)
    part = x[:, :2]
    net.relu(x)
    return torch.cat([part, part], 1)


def nested(net, x):
    x = net.conv(x)
    net.relu(x)
    return {"out": [net.again(x)]}["out"][0]


def plain(net, x):
    x = net.relu(net.norm(net.conv(x)))
    return net.drop(net.again(net.conv(x.repeat(1, 1, 1, 1)[:, :3]) + x))


NEEDED = {ignored: {"relu"}, summed: {"relu"}, looked_at_through_a_view: {"relu"}, nested: {"relu"}, plain: set()}


@pytest.mark.parametrize("way", NEEDED, ids=lambda way: way.__name__)
def test_a_network_computes_what_its_module_computes(way):
    torch.manual_seed(0)
    module = Written(way).eval()
    module.norm.running_mean.uniform_(-1, 1)
    assert needed_in_place(module, (3, 8, 8)) == NEEDED[way]
    net, images = sp.Network(module, input_size=(3, 8, 8)), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(net.module(images), module(images))
    left = {name for name, part in net.module.named_modules() if getattr(part, "inplace", False)}
    assert left == NEEDED[way], "all others are turned off"
    assert module.relu.inplace, "the module that was given is not touched"


def test_a_captured_map_is_not_overwritten():
    net = sp.Network(Written(ignored), input_size=(3, 8, 8))
    images = torch.rand(1, 3, 8, 8)
    maps = activations(net, images, ["conv", "relu"])
    assert float(maps["conv"].min()) < 0 and torch.equal(maps["conv"].clamp(min=0), maps["relu"])


def test_what_cannot_run_on_the_meta_device_is_left_as_it_was_taken_before():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(x * 2) if float(x.sum()) > 0 else x

    assert needed_in_place(Looks(), (3, 8, 8)) == set()
