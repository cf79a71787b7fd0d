"""A parametrised network is asked like its folded twin: same layers, same arithmetic, same receptive fields."""

import pytest
import torch
from torch import nn

import sp_core as sp
import sp_core.parameterizations as P
from sp_core.weights import weights

GROUPED = {name: {"groups": 2} for name in ("root", "tree", "column")}


@pytest.mark.parametrize("name", P.names())
def test_a_parametrised_network_is_asked_like_its_folded_twin(name):
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 1, 1),  # one output channel: its weight looks like a batch of one image
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    P.apply(P.apply(module, name, ["2"], **GROUPED.get(name, {})), "svd", ["4"], rank=1)
    net = sp.Network(module, name="parametrised", input_size=(3, 16, 16))
    twin = sp.Network(P.fold(module), name="folded", input_size=(3, 16, 16))
    assert net.layers == twin.layers
    assert [(row.name, row.kind) for row in weights(net)] == [(row.name, row.kind) for row in weights(twin)]
    ours, theirs = sp.complexity(net), sp.complexity(twin)
    assert (ours.macs, ours.status, ours.skipped) == (theirs.macs, "complete", ())
    assert {k: v.macs for k, v in ours.per_layer.items()} == {k: v.macs for k, v in theirs.per_layer.items()}
    assert ours.parameters == P.free_parameters(module, trained=True)
    fields = sp.receptive_fields(twin)
    assert {k: v.size for k, v in sp.receptive_fields(net).items()} == {k: v.size for k, v in fields.items()}
    image = torch.rand(1, 3, 16, 16)
    assert torch.allclose(
        sp.backprop(net, image, "2:3", "guided"), sp.backprop(twin, image, "2:3", "guided"), atol=1e-5
    )
