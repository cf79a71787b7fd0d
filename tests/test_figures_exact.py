"""Published figures to the integer: ``assets/figures/exact.json`` names the source of each and the network it is of.

Everything is counted on empty meta tensors. A record's ``is`` says what is read of which network: see ``READ``.
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from sp_core import zoo
from sp_core.checkpoints.catalogue import empty_on_meta
from sp_core.counts import CONVENTIONS, complexity
from sp_core.network import Network
from sp_core.parameterizations import free_parameters
from sp_core.receptive_field import receptive_fields

FILE = Path(__file__).resolve().parents[1] / "assets" / "figures" / "exact.json"
RECORDS = json.loads(FILE.read_text("utf-8"))["records"]


@cache
def network(name, options, size=None):
    with empty_on_meta():
        module = zoo.create(name, **dict(options))
    return Network(module.eval(), name=name, input_size=tuple(size or zoo.entry(name).input_size))


@cache
def counted(name, options, size, convention):
    return complexity(network(name, options, size), convention)


@cache
def fields(name, options):
    return receptive_fields(network(name, options))


class Read:
    """One record's ``is``, and what is read of its network: each method is one way of reading."""

    def __init__(self, how):
        self.name, self.how = how["network"], how
        self.options = tuple(sorted(how.get("options", {}).items()))
        self.size = tuple(how["size"]) if "size" in how else None

    def count(self, **options):
        every = tuple(sorted({**dict(self.options), **options}.items()))
        return counted(self.name, every, self.size, self.how["convention"])

    def layer_or_all(self, what, answer=None):
        answer = answer or self.count()
        whole = getattr(answer.per_layer[self.how["layer"]] if "layer" in self.how else answer, what)
        return whole - sum(getattr(answer.per_layer[name], what) for name in self.how.get("without", ()))

    def parameters(self):
        return self.layer_or_all("parameters")

    def macs(self):
        return self.layer_or_all("macs")

    def parameters_and_macs(self):
        return [self.parameters(), self.macs()]

    def kept(self):
        """Training has more freedom than its result: what has to be kept of a symmetric weight."""
        return free_parameters(network(self.name, self.options).module)

    def plain_and_triangular(self):
        return [self.count().parameters, self.count(symmetry="triangular").parameters]

    def exits(self):
        """What has been spent at exit 1, 2, …: all blocks and classifiers up to there."""
        leaves = [layer.name for layer in network(self.name, ()).layers if layer.leaf]
        costs, spent = Counter(), 0
        for name in leaves:
            costs[int(name.split(".")[1])] += self.count().per_layer[name].macs
        return [spent := spent + costs[exit] for exit in range(len(costs))]

    def exits_in_millions(self):
        return [round(cost / 1e6, 2) for cost in self.exits()]

    def lstm_and_gru(self):
        both = (counted(name, (), None, "torch") for name in ("lstm", "gru"))
        return [self.layer_or_all("parameters", answer) for answer in both]

    def shape(self):
        """Height, width, channels, as the lectures write it."""
        (layer,) = (row for row in network(self.name, self.options).layers if row.name == self.how["layer"])
        return [*layer.output_shape[1:], layer.output_shape[0]]

    def fields(self):
        found = fields(self.name, self.options)
        return [found[name].size for name in self.how["layers"]]

    def field_stride_and_padding(self):
        field = fields(self.name, self.options)[self.how["layer"]]
        return [field.size, field.stride, -field.start]

    def stride_and_field(self):
        """Along time, the second axis."""
        field = fields(self.name, self.options)[self.how["layer"]]
        return [field.stride[1], field.size[1]]


# Deep enough to cost seconds: with the others they would make the suite slow.
HEAVY = (
    *("cifar-resnet1202", "preact-resnet", "densenet", "msdnet", "resnet101", "resnet152", "resnet200", "googlenet"),
    *("diracnet-100", "wrn-100", "condensenet", "shufflenet", "resnext101", "inception", "mobilenet", "ecg"),
    *("wrn-imagenet", "se-resnet", "hrnet"),
)


def marked(record):
    name, read = record["is"]["network"], record["is"]["read"]
    heavy = name.startswith(HEAVY) or "field" in read
    return pytest.param(record, marks=pytest.mark.slow if heavy else ())


def title(record):
    return f"{record['system']}: {record['variant']}, {record['quantity']}".replace("/", "÷")


@pytest.mark.parametrize("record", [marked(record) for record in RECORDS], ids=title)
def test_a_published_figure_comes_out_to_the_integer(record):
    assert record["source"] and zoo.entry(record["is"]["network"])
    found = getattr(Read(record["is"]), record["is"]["read"].replace(",", "").replace(" ", "_"))()
    value = record["value"]
    if isinstance(found, list) and not isinstance(value, list):
        (found,) = found
    assert found == value, f"{record['source']} says {value}, the zoo's {record['is']['network']} has {found}"


def test_the_records_are_what_they_should_be():
    assert len({title(record) for record in RECORDS}) == len(RECORDS)
    quantities = Counter(record["quantity"] for record in RECORDS)
    assert quantities["parameters"] + quantities["multiply-accumulates"] >= 227
    assert {record["is"].get("convention", "torch") for record in RECORDS} == set(CONVENTIONS)
    assert len({record["is"]["network"] for record in RECORDS}) > 110


def test_a_network_that_stops_early_costs_what_is_spent_there():
    (record,) = (r for r in RECORDS if r["is"]["read"] == "exits" and r["is"]["network"] == "msdnet-cifar100-batch")
    assert counted("msdnet-cifar100-batch", (("exits", 2),), None, "torch").macs == record["value"][1]


def test_a_wrong_figure_is_noticed():
    (record,) = (
        r for r in RECORDS if r["system"] == "Deep Roots ResNet-50" and r["variant"] == "root64" and "para" in title(r)
    )
    with pytest.raises(AssertionError, match="resnet50-root64 has 15312808"):
        test_a_published_figure_comes_out_to_the_integer(record | {"value": record["value"] + 1})
