"""The command line as a person meets it: every verb, on a bundled network, and every common mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sp_core.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
NET = "bundled:textures-vgg"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_mandelbrot((90, 70), (-2, -1, 1, 1), 60).convert("RGB").save(path)
    return str(path)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0 and "--json" in out


def commands(photo: str, folder: Path) -> dict[str, list[str]]:
    return {
        "models": ["models"],
        "describe": ["describe", NET],
        "predict": ["predict", NET, "--image", photo],
        "filters": ["filters", NET, "--out", str(folder / "filters.png")],
        "backprop": ["backprop", NET, "--image", photo, "--out", str(folder / "guided.png")],
        "attribute": ["attribute", NET, "--image", photo, "--method", "grad_cam", "--out", str(folder / "map.png")],
        "ascend": ["ascend", NET, "--class", "3", "--steps", "3", "--out", str(folder / "ascent.png")],
        "dream": ["dream", NET, "--image", photo, "--steps", "2", "--octaves", "1", "--out", str(folder / "dream.png")],
        "receptive-fields": ["receptive-fields", NET],
        "complexity": ["complexity", NET],
        "singular-values": ["singular-values", NET],
    }


@pytest.mark.parametrize("verb", commands("", Path()))
def test_every_verb_answers_in_one_json_object_and_for_people(capsys, photo, tmp_path, verb):
    arguments = commands(photo, tmp_path)[verb]
    status, out, _ = run(capsys, *arguments, "--json")
    assert status == 0
    assert isinstance(json.loads(out), dict)
    if "--out" in arguments:
        with Image.open(arguments[arguments.index("--out") + 1]) as picture:
            assert min(picture.size) > 8
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and out.strip()


def test_describe_says_what_is_promised(capsys):
    _, out, _ = run(capsys, "describe", NET, "--json")
    answer = json.loads(out)
    promised = {
        "name",
        "architecture",
        "confidence",
        "fingerprint",
        "parameters",
        "macs",
        "input",
        "classes",
        "warnings",
    }
    assert promised | {"warnings", "layers"} <= set(answer)
    assert set(answer["input"]) >= {"channels", "height", "width", "mean", "std"}
    for layer in answer["layers"]:
        assert set(layer) >= {"name", "kind", "output", "parameters", "macs", "receptive_field"}
    fields = [layer["receptive_field"] for layer in answer["layers"] if layer["receptive_field"]]
    assert fields and all(set(field) >= {"size", "stride", "start", "status"} for field in fields)


def test_index_and_top_go_together(capsys, tmp_path):
    folder = str(tmp_path / "index")
    status, out, _ = run(capsys, "index", NET, "--dataset", "textures", "--count", "64", "--out", folder, "--json")
    assert status == 0 and json.loads(out)
    layer = "features.0"
    status, out, _ = run(capsys, "top", folder, f"{layer}:3", "--json")
    assert status == 0 and json.loads(out)["patches"]
    status, out, err = run(capsys, "top", folder, f"{layer}:3000")
    assert status == 2 and out == "" and "3000" in err


MISTAKES = {
    "no such verb": ["look", NET],
    "no such file": ["describe", "/nowhere/net.pth"],
    "a folder": ["describe", "/"],
    "no such bundled name": ["describe", "bundled:nothing"],
    "no such torchvision name": ["describe", "torchvision:resnet19"],
    "no such weights": ["describe", "torchvision:resnet18@NONSENSE"],
    "no such zoo name": ["describe", "zoo:nothing"],
    "no such device": ["describe", NET, "--device", "abacus"],
    "no such image": ["predict", NET, "--image", "/nowhere/photo.jpg"],
    "no such layer": ["ascend", NET, "--unit", "layer9:1", "--steps", "2"],
    "no such channel": ["ascend", NET, "--unit", "features.0:999", "--steps", "2"],
    "no such class": ["ascend", NET, "--class", "1000", "--steps", "2"],
    "not a unit": ["ascend", NET, "--unit", "features.0", "--steps", "2"],
    "no steps": ["ascend", NET, "--class", "1", "--steps", "0"],
    "too many steps": ["ascend", NET, "--class", "1", "--steps", "100000"],
    "no such recipe": ["train", "textures-alexnot"],
    "no such index": ["top", "/nowhere", "features.0:1"],
    "no such dataset": ["index", NET, "--dataset", "/nowhere", "--out", "/tmp/never"],
    "an option that is none": ["describe", NET, "--loudly"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_two(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *MISTAKES[mistake])
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1 and len(err) < 700
    assert "Traceback" not in err


def test_captums_own_is_compared_when_it_is_asked_for(capsys, photo, tmp_path):
    out = str(tmp_path / "map.png")
    asked = ["attribute", "bundled:textures-resnet", "--image", photo, "--out", out, "--captum", "--method"]
    status, text, _ = run(capsys, *asked, "guided", "--json")
    assert status == 0
    found = json.loads(text)["captum"]
    assert found["raised"] is None and found["same"] is False and found["from_gradient"] < 1e-6
    assert found["shape"] == json.loads(text)["shape"] and -1 < found["correlation"] < 1 < found["difference"]
    status, text, _ = run(capsys, *asked, "guided")
    assert status == 0 and "GuidedBackprop is the plain gradient, without a warning: correlation" in text
    status, text, _ = run(capsys, *asked, "integrated_gradients", "--set", "steps=8", "--json")
    found = json.loads(text)["captum"]
    assert found["same"] and abs(found["completeness_gap"] - json.loads(text)["completeness_gap"]) < 1e-3
    asked[1] = "torchvision:mobilenet_v2@none"
    status, text, _ = run(capsys, *asked, "lrp", "--json")
    found = json.loads(text)["captum"]
    assert status == 0 and found["raised"].startswith("TypeError: Module of type") and "correlation" not in found


def test_a_class_that_is_none_is_said(capsys, photo):
    status, out, err = run(capsys, "backprop", NET, "--image", photo, "--target", "999")
    assert status == 2 and out == "" and "999" in err


def test_files_that_are_no_checkpoints(capsys, tmp_path):
    for name, data in {"empty.pth": b"", "text.pt": b"hello", "photo.safetensors": b"\x89PNG\r\n\x1a\n" * 9}.items():
        path = tmp_path / name
        path.write_bytes(data)
        status, out, err = run(capsys, "describe", str(path))
        assert status == 2 and out == "" and name in err and len(err.strip().splitlines()) == 1


def test_a_truncated_checkpoint_is_said(capsys, tmp_path):
    whole = (ROOT / "assets" / "checkpoints" / "textures-vgg.safetensors").read_bytes()
    path = tmp_path / "half.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    status, out, err = run(capsys, "describe", str(path))
    assert status == 2 and out == "" and "half.safetensors" in err


def test_it_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "sp_core", "describe", NET, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["confidence"] == "exact"
    done = subprocess.run([sys.executable, "-m", "sp_core"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in VERBS)
