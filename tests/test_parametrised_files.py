"""Networks of the zoo with options in their name, and checkpoints whose weights are parametrised."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

import sp_core as sp
from sp_core import parameterizations as P
from sp_core.checkpoints.expression import literal
from sp_core.cli import main
from sp_core.parameterizations.recognised import free_parts, ways

NET = "wrn-16-1-bottleneck"


def _saved(net: nn.Module, path) -> nn.Module:
    """Write the state dict of ``net``, moved off its start, so that no part is what a constructor makes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for part in net.parameters():
            part.add_(0.01 * torch.randn_like(part))
    safetensors.torch.save_file(net.state_dict(), path)
    return net.eval()


def _same(net: sp.Network, module: nn.Module) -> bool:
    images = torch.rand(1, *net.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return bool(torch.equal(net.module(images), module(images)))


# --- the name -------------------------------------------------------------------------------------------------------


def test_options_in_the_name_make_the_network_that_create_makes():
    net = sp.load(f"zoo:{NET}(symmetry='triangular', classes=7)", device="cpu")
    torch.manual_seed(0)
    made = sp.zoo.create(NET, symmetry="triangular", classes=7)
    assert all(torch.equal(a, b) for a, b in zip(net.module.parameters(), made.parameters(), strict=True))
    assert net.architecture == f"zoo:{NET}(symmetry='triangular')" and net.class_count == 7
    again = sp.load(net.source, device="cpu")  # what a link and the code of a page say
    assert again.identity == net.identity and again.name == f"{NET}(classes=7, symmetry='triangular')"


def test_quotes_may_be_left_out_and_class_names_go_with_another_count():
    one, two = (sp.load(f"zoo:wrn-16-1({text})", device="cpu") for text in ("symmetry=soft-l1", 'symmetry="soft-l1"'))
    assert one.identity == two.identity and len(one.classes) == 10
    assert sp.load("zoo:wrn-16-1(classes=10)", device="cpu").classes == one.classes
    assert sp.load("zoo:wrn-16-1(classes=9)", device="cpu").classes is None
    assert sp.load("zoo:lstm(inputs=4)", device="cpu").input_size == (4, 1, 16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("zoo:wrn-16-1(symmetry=odd)", r"symmetry of zoo:wrn-16-1 is one of soft-l1, triangular, .*; got odd"),
        ("zoo:wrn-16-1(depth=3)", r"'depth' is not an option of zoo:wrn-16-1; its options are: .*symmetry"),
        ("zoo:wrn-16-1(classes=ten)", r"classes is a whole number of 1 or more; got ten"),
        ("zoo:wrn-16-1(channels=1)", r"channels= says what a file holds"),
        ("zoo:wrn-16-1(classes=", r"is not an architecture with options; write it as"),
        ("zoo:wrn-16-1(classes=__import__('os'))", r"is not an architecture with options"),
        ("zoo:wrn-16-1(classes=2, classes=3)", r"is not an architecture with options"),
        ("zoo:alexnet(classes=1000000)", r"would have 4,154,003,840 weights; at most 268,435,456"),
        ("zoo:tcn(levels=400)", r"levels of zoo:tcn is a number from 0 to 12; got 400"),
        ("zoo:nothing-like-it(classes=3)", r"'nothing-like-it' is not an architecture of the zoo"),
    ],
)
def test_what_the_name_may_not_say(source, message):
    with pytest.raises(sp.SpError, match=message):
        sp.load(source)


@pytest.mark.parametrize("text", ["", "a b", "-", "__class__", "f()", "1+1j*x", "[", "'a"])
def test_what_is_no_literal(text):
    with pytest.raises((ValueError, SyntaxError)):
        literal(text)


def test_a_verb_takes_it(capsys):
    assert main(["describe", f"zoo:{NET}(symmetry=eigen,classes=3)", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["architecture"] == f"zoo:{NET}(symmetry='eigen')" and said["classes"] == 3


# --- files ----------------------------------------------------------------------------------------------------------

# The parametrisations that share the shapes of their parts with others, in the order in which they are taken.
ALIKE = (
    ("average", "spatial-average", "spatial-channel-average", "soft-l1"),
    ("triangular", "ldl"),
    ("4-way-chunking", "4-way-blocking"),
)


@pytest.mark.parametrize("symmetry", P.names("symmetric"))
def test_a_symmetric_network_is_known_by_its_parts(tmp_path, symmetry):
    module = _saved(sp.zoo.create(NET, symmetry=symmetry, classes=4), tmp_path / "a.safetensors")
    net = sp.load(tmp_path / "a.safetensors", device="cpu")
    alike = next((names for names in ALIKE if symmetry in names), (symmetry,))
    assert net.architecture == f"zoo:{NET}(symmetry='{alike[0]}')" and net.class_count == 4
    assert net.confidence == ("exact" if len(alike) == 1 else "likely")
    assert all(name in net.warnings[0] for name in alike) if len(alike) > 1 else not net.warnings
    assert _same(net, module) == (symmetry == alike[0])
    named = sp.load(tmp_path / "a.safetensors", device="cpu", architecture=f"zoo:{NET}", symmetry=symmetry)
    assert named.confidence == "exact" and _same(named, module)


def test_a_card_decides_where_parts_are_alike(tmp_path):
    module = _saved(sp.zoo.create(NET, symmetry="ldl"), tmp_path / "a.safetensors")
    card = {"architecture": f"{NET}(symmetry='ldl')", "input_size": [3, 32, 32]}
    (tmp_path / "a.json").write_text(json.dumps(card))
    net = sp.load(tmp_path / "a.safetensors", device="cpu")
    assert net.confidence == "exact" and _same(net, module)
    (tmp_path / "a.json").write_text(json.dumps(card | {"architecture": f"{NET}(symmetry='eigen')"}))
    assert sp.load(tmp_path / "a.safetensors").confidence == "likely"  # a card that does not fit says nothing


@pytest.mark.parametrize("name", [*P.names("low rank"), "dirac", "dirac-v1", "column"])
def test_a_network_parametrised_by_hand_is_known(tmp_path, name):
    options = {"groups": 4} if name == "column" else {"rank": 3} if P.entry(name).options.get("rank") else {}
    net = P.apply(models.resnet18(num_classes=5), name, ["layer1.0.conv1", "layer2.0.conv1"], **options)
    module = _saved(net, tmp_path / "a.safetensors")
    found = sp.load(tmp_path / "a.safetensors", device="cpu")
    assert found.confidence == "exact" and found.architecture is None and _same(found, module)
    assert f"2 weights of torchvision:resnet18 are parametrised ({name})" in "".join(found.warnings)
    assert set(P.parametrized(found.module)) == {"layer1.0.conv1", "layer2.0.conv1"}


def test_several_parametrisations_in_one_network(tmp_path):
    net = P.apply(P.apply(sp.zoo.create("wrn-16-1"), "eigen", ["block1*conv2"]), "dirac", ["block2*conv2"])
    module = _saved(net, tmp_path / "a.safetensors")
    found = sp.load(tmp_path / "a.safetensors", device="cpu")
    assert found.confidence == "exact" and _same(found, module) and "(eigen, dirac)" in found.warnings[-1]


@pytest.mark.parametrize("name", ["diracnet-22-2", "diracnet-10-1-folded", "wrn-22-2-bottleneck"])
def test_sizes_without_a_line_in_the_table(tmp_path, name):
    module = _saved(sp.zoo.create(name, classes=3), tmp_path / "a.safetensors")
    net = sp.load(tmp_path / "a.safetensors", device="cpu")
    assert (net.architecture, net.confidence) == (f"zoo:{name}", "exact") and _same(net, module)


def test_parts_that_make_no_weight_are_only_looked_at(tmp_path):
    state = sp.zoo.create(NET, symmetry="eigen").state_dict()
    key = "group0.0.conv2.parametrizations.weight.original1"
    safetensors.torch.save_file(state | {key: torch.zeros(5, 3, 3)}, tmp_path / "a.safetensors")
    assert sp.load(tmp_path / "a.safetensors").confidence == "weights-only"


def test_free_parts_need_every_number():
    layers, rest = free_parts({"a.parametrizations.weight.original1": (2,), "b.weight": (1, 2)})
    assert not layers and len(rest) == 2
    assert ways((4, 4, 3, 3), ((10**9, 3, 3),)) == () and ways((7,), ((7,),)) == ()
