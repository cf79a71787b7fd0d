"""Weights without a graph: layers from names and shapes, and nothing that can be run."""

import pytest
import torch
from PIL import Image
from torch import nn

import sp_core as sp
from sp_core import cli
from sp_core.checkpoints.loose import image_channels, loose
from sp_core.errors import NeedsGraph


class Odd(nn.Module):
    """A network that nobody knows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU())
        self.line = nn.Conv1d(8, 4, 7)
        self.memory = nn.LSTM(4, 6)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 2)
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("table", torch.arange(4))


def test_layers_are_what_names_and_shapes_say():
    state = Odd().state_dict()
    made = loose(state, "a file")
    kinds = {name: type(part).__name__ for name, part in made.named_modules() if name}
    assert kinds == {
        "stem": "Module", "stem.0": "Conv2d", "stem.1": "BatchNorm2d", "line": "Conv1d", "memory": "Module",
        "norm": "Module", "out": "Linear",
    }  # fmt: skip
    assert made.get_submodule("stem.0").kernel_size == (5, 5)


@pytest.mark.parametrize(
    "state",
    [
        Odd().state_dict(),
        {"a": torch.ones(2, 2), "a.b": torch.ones(3), "a.b.weight": torch.ones(2, 2)},  # a tensor and a path
        {"": torch.ones(1), ".": torch.ones(1), "x..weight": torch.ones(2, 3)},
        {"a.forward": torch.ones(2, 2), "training.weight": torch.ones(2, 2), "_parameters.weight": torch.ones(2, 2)},
        {".".join("a" * 5000): torch.ones(2, 2)},
        {"c.weight": torch.ones(0, 3, 3, 3), "d.weight": torch.ones(2, 3, 1, 1, 1, 1), "d.bias": torch.ones(9)},
        {"n.running_mean": torch.ones(4), "n.weight": torch.ones(2, 2)},
        {"i.weight": torch.ones(2, 2, dtype=torch.int8), "h.weight": torch.ones(2, 2, dtype=torch.half)},
    ],
)
def test_the_state_dict_is_the_file_whatever_its_names(state):
    made = loose(state, "a file")
    assert made.state_dict().keys() == state.keys()
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in state.items())
    net = sp.Network(made, name="odd", confidence="weights-only")
    assert not net.has_graph and net.class_count == 0
    with pytest.raises(NeedsGraph, match="Of a file only the weights are known"):
        _ = net.layers


def test_a_name_that_every_module_has_is_changed():
    made = loose({"training": torch.ones(2, 2), "half.weight": torch.ones(2, 2)}, "a file")
    assert sorted(made.state_dict()) == ["half.weight", "training_"] and made.eval().training is False


def test_every_question_about_weights_has_an_answer(tmp_path):
    torch.save({"state_dict": {f"model.{k}": v for k, v in Odd().state_dict().items()}}, tmp_path / "odd.ckpt")
    net = sp.load(tmp_path / "odd.ckpt", device="cpu")
    assert (net.architecture, net.confidence, net.input_size[0]) == (None, "weights-only", 3)
    card = sp.describe(net)
    assert card["layers"][0]["name"] == "" and card["classes"] == 0 and card["macs"] is None
    assert [row["kind"] for row in card["layers"]].count("Conv2d") == 1
    assert sp.filters.first_layer(net) == "stem.0" and sp.filters.bank(net).view == "rgb"
    assert {"stem.0.weight", "line.weight", "out.weight"} <= sp.singular_values(net).keys()
    for question in (lambda: sp.predict(net, torch.zeros(1, 3, 9, 9)), lambda: sp.complexity(net),
                     lambda: sp.receptive_fields(net)):  # fmt: skip
        with pytest.raises(NeedsGraph):
            question()


def test_one_fingerprint_whatever_the_wrapper_and_prefix(tmp_path):
    state = Odd().state_dict()
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "wrapped.pth")
    bare, wrapped = (sp.load(tmp_path / name, device="cpu") for name in ("bare.pth", "wrapped.pth"))
    assert bare.fingerprint == wrapped.fingerprint
    state["out.bias"] += 1e-6
    torch.save(state, tmp_path / "other.pth")
    assert sp.load(tmp_path / "other.pth", device="cpu").fingerprint != bare.fingerprint


def test_the_channels_of_the_images_are_those_of_the_likeliest_first_layer():
    def conv(channels):
        return torch.zeros(8, channels, 3, 3)

    assert image_channels({"z": conv(64), "a": conv(3)}) == 3
    assert image_channels({"z": conv(64), "a": conv(1)}) == 1
    assert image_channels({"a": conv(13), "b": conv(8)}) == 13
    assert image_channels({"a": conv(64)}) is None
    assert image_channels({}) is None


@pytest.mark.parametrize("verb", ["predict", "backprop"])
def test_verbs_that_need_a_graph_say_so(tmp_path, capsys, verb):
    torch.save(Odd().state_dict(), tmp_path / "odd.pth")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    assert cli.main([verb, str(tmp_path / "odd.pth"), "--image", str(tmp_path / "photo.png")]) == 2
    assert "Of odd.pth only the weights are known" in capsys.readouterr().err
