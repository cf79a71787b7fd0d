"""The card of a network, and the three verbs that speak of it, as a person calls them."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import sp_core as sp
from sp_core import card as cards
from sp_core.cli import main
from sp_core.errors import SpError


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 13 * 13, 3)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.fc(x.flatten(1))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((90, 70), 60).convert("RGB").save(path)
    return str(path)


def test_card_has_what_it_promises():
    net = sp.Network(Tiny(), name="tiny", input_size=(1, 28, 28), mean=[0.1], std=[0.3], warnings=("Look out.",))
    card = sp.describe(net)
    assert card["name"] == "tiny" and card["architecture"] is None and card["confidence"] == "exact"
    assert card["fingerprint"] == net.fingerprint and card["classes"] == 3
    assert card["input"] == {"channels": 1, "height": 28, "width": 28, "mean": [0.1], "std": [0.3], "resize": 28}
    assert card["parameters"] == 4 * 9 + 4 + 3 * 676 + 3
    assert card["macs"] == 4 * 9 * 13 * 13 + 3 * 676
    assert "Look out." in card["warnings"]
    conv, relu, fc = card["layers"]
    assert (conv["name"], conv["kind"], conv["output"]) == ("conv", "Conv2d", [4, 13, 13])
    assert conv["weight"] == [4, 1, 3, 3] and relu["weight"] is None and card["tensors"] == 4 and card["guesses"] == {}
    assert (conv["parameters"], conv["macs"]) == (40, 4 * 9 * 13 * 13)
    assert conv["receptive_field"] == {"size": 3, "stride": 2, "start": 0, "status": "complete"}
    assert (relu["parameters"], fc["output"]) == (0, [3])
    assert json.loads(json.dumps(card)) == card
    assert "4×13×13" in cards.as_text(card) and "note: Look out." in cards.as_text(card)


def test_card_of_a_network_without_convolutions():
    card = sp.describe(sp.Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), input_size=(3, 2, 2)))
    assert card["classes"] == 2 and [layer["kind"] for layer in card["layers"]] == ["Flatten", "Linear"]
    assert card["parameters"] == 26 and card["macs"] == 24


def test_axes_that_differ_are_both_said():
    card = sp.describe(sp.Network(nn.Conv2d(3, 2, (3, 5)), input_size=(3, 9, 9)))
    assert card["layers"] == [] or card["layers"][0]["receptive_field"]["size"] == [3, 5]
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 2, (3, 5))), input_size=(3, 9, 9))
    assert sp.describe(net)["layers"][0]["receptive_field"]["size"] == [3, 5]


def test_one_number_that_cannot_be_had_hides_no_other(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise SpError("It is too large.")

    monkeypatch.setattr(cards, "receptive_fields", refuse)
    monkeypatch.setattr(cards, "complexity", refuse)
    card = sp.describe(sp.Network(Tiny(), input_size=(1, 28, 28)))
    assert card["macs"] is None and card["layers"][0]["receptive_field"]["status"] == "unavailable"
    assert card["warnings"] == ["No counts: It is too large.", "No receptive fields: It is too large."]


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_models_lists_what_loads(capsys):
    status, out, _ = run(capsys, "models", "--json")
    answer = json.loads(out)
    assert status == 0 and list(answer) == ["bundled", "zoo", "torchvision"]
    assert "textures-vgg" in answer["zoo"] and {"resnet18", "vgg16"} <= set(answer["torchvision"])
    assert "fcn_resnet50" not in answer["torchvision"]
    status, out, _ = run(capsys, "models")
    assert status == 0 and "  torchvision:resnet18\n" in out


def test_describe_verb(capsys):
    status, out, _ = run(capsys, "describe", "zoo:textures-vgg", "--json", "--device", "cpu")
    card = json.loads(out)
    assert status == 0 and card["architecture"] == "zoo:textures-vgg" and card["input"]["height"] == 64
    assert card["layers"][0]["receptive_field"]["size"] == 3
    status, out, _ = run(capsys, "describe", "zoo:textures-vgg")
    assert status == 0 and out.startswith("textures-vgg: zoo:textures-vgg (exact)")


def test_predict_verb(capsys, photo):
    status, out, err = run(capsys, "predict", "zoo:textures-vgg", photo, photo, "--top", 2, "--class", 17, "--json")
    answer = json.loads(out)
    first, second = answer["images"]
    assert status == 0 and first["top"] == second["top"] and len(first["top"]) in {2, 3}
    assert first["top"][0]["probability"] >= first["top"][1]["probability"]
    assert 17 in {row["class"] for row in first["top"]} and "note: textures-vgg is untrained" in err
    net = sp.load("zoo:textures-vgg")
    shares = sp.predict(net, net.view(sp.open_image(photo))[None]).softmax(1)[0]
    assert first["top"][0]["probability"] == pytest.approx(float(shares.max()), rel=1e-4)
    status, out, _ = run(capsys, "predict", "zoo:textures-vgg", photo, "--top", 99)
    assert status == 0 and len(out.splitlines()) == 1 + len(shares)


@pytest.fixture
def bad(tmp_path):
    """Files that are no network, each by what is wrong with it."""
    torch.save({"a": torch.zeros(99)}, tmp_path / "unknown.pth")
    whole = tmp_path / "whole.pth"
    torch.save(sp.zoo.create("textures-vgg").state_dict(), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:5000])
    torch.save(sp.zoo.create("textures-vgg").state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "old-cut.pth").write_bytes((tmp_path / "old.pth").read_bytes()[:-1000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print, 2))
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    return tmp_path


@pytest.mark.parametrize("verb", ["describe", "predict"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown.pth", "no weight matrix"),
        ("cut.pth", "damaged or incomplete"),
        ("old-cut.pth", "damaged or incomplete"),
        ("empty.pth", "is empty (0 bytes)"),
        ("text.pth", "neither a PyTorch checkpoint"),
        ("code.pth", "could run code"),
        ("model.pth", "torch.save(state, 'weights.pth')"),
        ("missing.pth", "No such file"),
        ("", "is a directory"),
    ],
)
def test_bad_checkpoints_are_one_line_and_status_2(bad, capsys, photo, verb, name, message):
    status, out, err = run(capsys, verb, f"{bad}/{name}", *([photo] if verb == "predict" else []))
    assert status == 2 and out == "" and err.count("\n") == 1 and message in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "99"], "has classes 0 to"),
        (["--class", "-1"], "has classes 0 to"),
        (["--top", "0"], "--top must be at least 1"),
        (["/nowhere.png"], "cannot be opened"),
        (["--device", "cuda:77"], "There is no device"),
    ],
)
def test_bad_requests_are_one_line_and_status_2(capsys, photo, arguments, message):
    status, out, err = run(capsys, "predict", "zoo:textures-vgg", photo, *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert status == 2 and out == "" and len(lines) == 1 and message in lines[0]


def test_broken_weights_are_said_not_shown(capsys, photo, tmp_path):
    state = sp.zoo.create("textures-vgg").state_dict()
    state["classifier.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    status, _, err = run(capsys, "predict", tmp_path / "nan.pth", photo)
    assert status == 2 and "NaN or infinity" in err


def test_a_real_process(bad):
    done = subprocess.run(
        [sys.executable, "-m", "sp_core", "describe", str(bad / "model.pth")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
