"""Architectures described without memory: the graph against the networks themselves, and the table of costs."""

import pytest
import torch
from torch import nn

from sp_core import zoo
from sp_core.architecture import costs, describe, on_meta, options_in
from sp_core.counts import complexity
from sp_core.errors import SpError
from sp_core.figures import graph as figures
from sp_core.flow import flow
from sp_core.network import Network
from sp_core.outline import MOST, QUIET, blocks

QUICK = (
    "lenet5",
    "vgg11-gmp-lr-join",
    "resnet50-root8",
    "googlenet",
    "unet",
    "wrn-16-1-bottleneck",
    "diracnet18",
    "lstm",
)


class Skips(nn.Module):
    """One of everything that a graph must see: a skip, a gate, a concatenation, a function, a shared layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.gate = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        y = self.shared(x) + x
        z = self.shared(y) * torch.sigmoid(self.gate(y))
        both = torch.cat([y, z], 1)
        return self.head(both.mean((2, 3)))


@pytest.fixture(scope="module")
def skips():
    return flow(Network(Skips(), input_size=(3, 8, 8)))


def edges(graph):
    return {(graph.nodes[source].name, node.name) for node in graph.nodes for source in node.inputs}


def test_every_connection_is_found(skips):
    assert edges(skips) == {
        ("input", "conv"), ("conv", "ReLU 1"), ("ReLU 1", "shared.0"), ("shared.0", "shared.1"),
        ("shared.1", "shared.2"), ("shared.2", "+ 1"), ("ReLU 1", "+ 1"), ("+ 1", "shared.0#2"),
        ("shared.0#2", "shared.1#2"), ("shared.1#2", "shared.2#2"), ("+ 1", "gate"), ("gate", "sigmoid 1"),
        ("shared.2#2", "× 1"), ("sigmoid 1", "× 1"), ("+ 1", "concat 1"), ("× 1", "concat 1"),
        ("concat 1", "mean 1"), ("mean 1", "head"),
    }  # fmt: skip
    assert skips.containers["shared#2"] == ("Sequential", (4, 8, 8))
    assert [skips.nodes[i].name for i in skips.outputs] == ["head"]


def test_boxes_hold_what_follows_them(skips):
    drawn = blocks(skips)
    by_name = {block.name: block for block in drawn}
    assert by_name["conv"].after == ("ReLU",) and by_name["shared.0"].after == ("BN",)
    assert not any(block.words in QUIET for block in drawn), "nothing quiet has a box of its own"
    few = blocks(skips, most=1)
    assert [block.name for block in few if block.whole] == ["shared", "shared#2"]
    inner = blocks(skips, "shared#2")
    assert [block.name for block in inner] == ["from + 1", "shared.0#2", "shared.2#2"]
    with pytest.raises(SpError, match="'nothing' is not a part"):
        blocks(skips, "nothing")


def test_equal_boxes_in_a_row_are_one_and_others_are_not():
    drawn = blocks(describe("resnet50-root8").graph)
    assert [(block.name, block.times) for block in drawn if block.whole] == [
        ("res2.0", 1), ("res2.1", 2), ("res3.0", 1), ("res3.1", 3), ("res4.0", 1), ("res4.1", 5), ("res5.0", 1),
        ("res5.1", 2),
    ]  # fmt: skip
    inception = [block for block in blocks(describe("googlenet").graph) if block.name.startswith("inception")]
    assert [block.times for block in inception] == [1] * 9, "4a to 4d have one shape and other widths"


@pytest.mark.parametrize("name", QUICK)
def test_a_drawing_loses_no_layer_and_no_operation(name):
    found = describe(name)
    leaves = {row.name for row in found.layers if row.leaf}
    drawn = blocks(found.graph)
    members = [member for block in drawn for member in block.members]
    assert leaves <= {node.name for node in found.graph.nodes}
    assert len(members) == len(set(members)) == len(found.graph.nodes)
    assert len(drawn) <= MOST or len(drawn) == len(blocks(found.graph, most=1))
    costs_of = figures.table_of_costs(found.layers)
    total = sum(costs_of[member][1] for member in members if member in costs_of)
    assert total == found.macs, "the shares of the boxes add up"
    assert all(source < i for i, block in enumerate(drawn) for source in block.inputs if i), "from top to bottom"


@pytest.mark.parametrize("name", ["googlenet", "unet", "resnet50-root8", "lstm"])
def test_no_two_boxes_of_a_drawing_overlap_and_edges_point_down(name):
    found = describe(name)
    for inside in ("", next(iter(found.graph.containers))):
        drawn = blocks(found.graph, inside)
        places = figures.layout(drawn)
        for i, place in enumerate(places):
            assert all(places[source].row < place.row for source in drawn[i].inputs)
            for other in places[:i]:
                assert other.row != place.row or abs(other.x - place.x) >= 0.99
        figure, height = figures.drawing(drawn, {}, total=1)
        points = figure.data[-1 if figure.data[-1].hovertext is not None else 4]
        assert height > 60 and points is not None


def test_resolutions_are_columns_where_they_run_in_parallel():
    found = describe("msdnet-cifar100")
    drawn = blocks(found.graph, "blocks.0")
    sides = {}
    for block, place in zip(drawn, figures.layout(drawn), strict=True):
        if block.kind == "ScaleNode":
            sides.setdefault(block.shape[1], set()).add(place.x)
    assert sorted(sides) == [8, 16, 32] and all(len(columns) == 1 for columns in sides.values())
    assert max(sides[32]) < min(sides[16]) < min(sides[8]), "the finest at the left"


def test_an_option_is_made_and_a_wrong_one_is_said():
    assert describe("wrn-16-1", {"classes": 100}).parameters == 180916
    assert options_in(" classes=3  symmetry=eigen ") == {"classes": 3, "symmetry": "eigen"}
    with pytest.raises(SpError, match="not an option of lenet5"):
        describe("lenet5", {"colour": 1})
    with pytest.raises(SpError, match="nonsense"):
        describe("wrn-16-1", {"symmetry": "nonsense"})
    with pytest.raises(SpError, match="did you mean"):
        describe("resnet50-root9")


def test_the_table_of_costs_has_every_name():
    assert sorted(costs()) == zoo.names(), "make it again: python -m sp_core.architecture"


@pytest.mark.parametrize("name", [*QUICK, "nin-cifar-root4", "mobilenet-v1", "wrn-28-10"])
def test_the_table_of_costs_is_what_is_counted(name):
    found = complexity(on_meta(name))
    assert costs()[name] == (found.parameters, found.macs)


@pytest.mark.slow
def test_the_whole_table_is_what_is_counted():
    wrong = {
        name for name, row in costs().items() if (c := complexity(on_meta(name))) and row != (c.parameters, c.macs)
    }
    assert not wrong


def test_a_network_that_needs_real_numbers_is_said():
    class Looks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(SpError, match="does not run without real numbers"):
        flow(Network(Looks(), input_size=(3, 4, 4)))


def test_the_network_is_left_as_it_was():
    net = Network(Skips(), input_size=(3, 8, 8))
    before = net.fingerprint
    flow(net)
    assert net.fingerprint == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.module.modules())
