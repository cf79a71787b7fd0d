"""The engine of receptive fields beside what is measured: every unit of every layer of a network of each kind."""

import pytest
import torch
import torchvision
from reach import compared

import sp_core as sp
from sp_core.network import Network

# All others: python -m benchmarks.fields --all
NETWORKS = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "cifar-resnet20", "cifar-senet18"]
NETWORKS += ["condensenet-cifar-50"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_and_every_law_is_what_is_measured(name):
    with torch.device("cpu" if name.startswith("condense") else "meta"):  # its indices count
        if hasattr(torchvision.models, name):
            module, side = torchvision.models.get_model(name, weights=None), 96
        else:
            module, side = sp.zoo.create(name), 32
    net = Network(module, input_size=(3, side, side))
    for gates in ("local", "strict"):
        found = compared(net, gates)
        assert (found["wrong boxes"], found["wrong laws"]) == ([], [])
        assert found["layers"] == len(net.layers)
        if not found["gates"]:
            assert found["laws"] == found["complete"] > 10  # each law that is claimed was compared
            break
