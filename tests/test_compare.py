"""What changed between two checkpoints: laws, a fine-tuned head, and files of which only the weights are known."""

import json
import math

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core import comparison
from sp_core.cli import main
from sp_core.comparison import compare


class Small(nn.Module):
    """Declared in another order than it runs."""

    def __init__(self, classes=5):
        super().__init__()
        self.fc = nn.Linear(8, classes)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def network(module, name="net"):
    return sp.Network(module, name=name, input_size=(3, 12, 12))


def changed(net, name, function):
    """A copy of ``net`` with one tensor changed."""
    module = Small(net.module.fc.out_features)
    state = {key: value.clone() for key, value in net.module.state_dict().items()}
    state[name] = function(state[name])
    module.load_state_dict(state)
    return network(module, "other")


@pytest.fixture
def net():
    return network(Small())


def by_layer(found):
    return {layer.layer: layer for layer in found.layers}


def test_a_checkpoint_compared_with_itself_has_not_changed(net):
    found = compare(net, net)
    assert (
        found.identical and found.relative == 0 and found.largest == 0 and found.cosine == 1 and found.statistics == 0
    )
    assert {tensor.status for tensor in found.tensors} == {"unchanged"}
    assert found.frozen == ("conv", "norm", "fc") and "bit for bit" in found.sentences()[0]
    assert [layer.layer for layer in found.layers] == ["conv", "norm", "fc"], "in execution order"


@pytest.mark.parametrize("epsilon", [1e-3, 0.25, -0.5, 3.0])
def test_scaling_a_layer_by_one_plus_epsilon_gives_epsilon(net, epsilon):
    other = changed(net, "conv.weight", lambda weight: (1 + epsilon) * weight)
    found = compare(net, other)
    row = next(tensor for tensor in found.tensors if tensor.name == "conv.weight")
    assert row.relative == pytest.approx(abs(epsilon), rel=1e-3) and row.status == "changed"
    assert row.cosine == pytest.approx(1 if epsilon > -1 else -1, abs=1e-6)
    assert row.largest == pytest.approx(abs(epsilon) * float(net.module.conv.weight.abs().max()), rel=1e-3)
    layers = by_layer(found)
    weight, bias = net.module.conv.weight, net.module.conv.bias
    expected = abs(epsilon) * float(weight.norm() / torch.cat([weight.flatten(), bias]).norm())
    assert layers["conv"].relative == pytest.approx(expected, rel=1e-3)
    assert layers["fc"].status == layers["norm"].status == "unchanged" and found.frozen == ("norm", "fc")
    assert "conv moved most" in " ".join(found.sentences())


def test_the_other_way_round_is_the_mirror_image(net):
    other = network(Small(classes=7), "other")
    there, back = compare(net, other), compare(other, net)
    mirrored = {"only in the first": "only in the second", "only in the second": "only in the first"}
    backwards = {tensor.name: tensor for tensor in back.tensors}
    assert there.fingerprints == back.fingerprints[::-1]
    assert there.cosine == pytest.approx(back.cosine) and there.largest == pytest.approx(back.largest)
    for tensor in there.tensors:
        twin = backwards[tensor.name]
        assert twin.status == mirrored.get(tensor.status, tensor.status)
        assert (tensor.shape, tensor.other_shape) == (twin.other_shape, twin.shape)
        assert math.isclose(tensor.largest, twin.largest) or math.isnan(tensor.largest)
        assert math.isclose(tensor.cosine, twin.cosine) or math.isnan(tensor.cosine)


def test_totals_are_those_of_all_tensors_as_one_vector(net):
    other = network(Small(), "other")
    found = compare(net, other)
    names = [name for name, _ in net.module.named_parameters()]
    a = torch.cat([net.module.get_parameter(name).double().flatten() for name in names])
    b = torch.cat([other.module.get_parameter(name).double().flatten() for name in names])
    assert found.relative == pytest.approx(float((b - a).norm() / a.norm()))
    assert found.cosine == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert found.largest == pytest.approx(float((b - a).abs().max()))


def test_large_tensors_are_summed_in_parts(net, monkeypatch):
    other = network(Small(), "other")
    whole = compare(net, other)
    monkeypatch.setattr(comparison, "_CHUNK", 7)
    parts = compare(net, other)
    assert parts.relative == pytest.approx(whole.relative) and parts.cosine == pytest.approx(whole.cosine)
    assert parts.largest == whole.largest


def test_a_fine_tuned_head_is_seen_as_such(net):
    """The body frozen, a new head of other classes, statistics that moved on."""
    module = Small(classes=9)
    state = {name: value.clone() for name, value in net.module.state_dict().items() if not name.startswith("fc")}
    state["norm.running_mean"] += 1
    state["norm.num_batches_tracked"] += 40
    module.load_state_dict(state, strict=False)
    found = compare(net, network(module, "tuned"))
    layers = by_layer(found)
    assert found.frozen == ("conv", "norm") and layers["fc"].status == "reshaped"
    assert math.isnan(layers["fc"].relative) and layers["fc"].parameters == 0
    assert layers["norm"].status == "unchanged" and layers["norm"].statistics > 0 and found.statistics > 0
    assert found.count("reshaped") == 2 and not found.identical
    said = " ".join(found.sentences())
    assert "2 tensors have another shape (fc.weight, fc.bias)" in said and "statistics" in said


def test_what_only_one_has_is_named(net):
    class Longer(Small):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(2, 2)

    found = compare(net, network(Longer(), "longer"))
    assert by_layer(found)["extra"].status == "only in the second" and found.count("only in the second") == 2
    assert "are only in longer (extra.weight, extra.bias)" in " ".join(found.sentences())


def test_zero_and_nan_have_their_words(net):
    zero = changed(net, "fc.bias", torch.zeros_like)
    row = next(tensor for tensor in compare(zero, net).tensors if tensor.name == "fc.bias")
    assert row.relative == math.inf and math.isnan(row.cosine) and row.largest > 0
    broken = changed(net, "fc.bias", lambda bias: bias * math.nan)
    row = next(tensor for tensor in compare(net, broken).tensors if tensor.name == "fc.bias")
    assert row.status == "changed" and math.isnan(row.relative) and math.isnan(row.largest)
    same = compare(broken, broken)
    assert same.identical, "NaN in the same places is no change"
    assert json.dumps(compare(net, broken).rows(), allow_nan=False)


def test_two_of_which_only_the_weights_are_known(tmp_path):
    state = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 7, 3)).state_dict()
    torch.save({f"odd.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    state["2.bias"] = state["2.bias"] + 1
    torch.save({f"odd.{key}": value for key, value in state.items()}, tmp_path / "b.pth")
    a, b = sp.load(tmp_path / "a.pth"), sp.load(tmp_path / "b.pth")
    assert a.confidence == "weights-only"
    found = compare(a, b)
    assert [layer.status for layer in found.layers] == ["unchanged", "changed"] and found.largest == pytest.approx(1)


def test_nothing_in_common_is_said(net):
    with pytest.raises(sp.SpError, match="net and mlp have no tensor of the same name"):
        compare(net, sp.Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), name="mlp", input_size=(3, 2, 2)))


def test_the_verb_says_it_and_prints_json(capsys):
    assert main(["compare", "bundled:textures-vgg", "zoo:textures-vgg", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["relative"] > 0 and answer["tensors"][0]["status"] == "changed"
    assert {"first", "second", "frozen", "layers"} <= answer.keys()
    assert main(["compare", "bundled:textures-vgg", "bundled:textures-vgg"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert main(["compare", "bundled:textures-vgg", "zoo:nothing"]) == 2


def test_the_figure_shows_each_layer_once_and_says_what_has_no_bar(net):
    from sp_core.figures.changes import layer_bars

    tuned = changed(net, "conv.weight", lambda weight: 1.5 * weight)
    found = compare(net, tuned)
    bars, frozen = layer_bars(found).data
    assert bars.x == ("conv", "norm", "fc") and bars.y[0] == pytest.approx(found.layers[0].relative) and bars.y[1] == 0
    assert frozen.name == "frozen" and frozen.x == ("norm", "fc") and frozen.y == (0, 0)
    headless = layer_bars(compare(net, network(Small(classes=9), "tuned"))).data
    crosses = next(trace for trace in headless if trace.name == "no partner")
    assert crosses.x == ("fc",) and headless[0].y[2] is None and "another shape" in crosses.hovertext[0]
    moved = layer_bars(compare(net, changed(net, "norm.running_mean", lambda mean: mean + 1))).data
    points = next(trace for trace in moved if trace.name == "statistics")
    assert points.x == ("norm",) and points.y[0] > 0
