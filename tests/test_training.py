import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from sp_core import cli, zoo
from sp_core.errors import SpError
from sp_core.training import RECIPES, Recipe, measure, recipe, train
from sp_core.zoo.entry import Entry

BUNDLED = Path(__file__).parent.parent / "assets" / "checkpoints"
PLAIN = {"PATH": "", "PYTHONPATH": str(BUNDLED.parent.parent)}  # the environment of a fresh Python
HEAVY = ("streamlit", "plotly", "captum", "pandas", "matplotlib", "timm")


class Tiny(nn.Module):
    """Every kind of state there is: batch statistics, dropout (the generator), momentum."""

    def __init__(self, classes=18):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(monkeypatch):
    entry = Entry(Tiny, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple(f"class {i}" for i in range(18)), "a test")
    monkeypatch.setitem(zoo._ENTRIES, "tiny", entry)
    made = Recipe("tiny", "tiny", steps=12, batch=18, held_out=36, measure_every=4, warmup=2, learning_rate=0.1)
    monkeypatch.setitem(RECIPES, "tiny", made)
    return made


def weights(folder, name="tiny"):
    return load_file(folder / f"{name}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    r = Recipe("r", "tiny", steps=1000, learning_rate=0.2, warmup=100)
    assert r.rate(0) == pytest.approx(0.002) and r.rate(99) == pytest.approx(0.2)
    assert r.rate(550) == pytest.approx(0.1)  # half-way down the cosine
    assert 0 < r.rate(999) < 1e-5
    assert all(r.rate(k) >= r.rate(k + 1) for k in range(99, 999))


def test_training_learns_and_leaves_weights_and_a_card(tiny, tmp_path):
    r = replace(tiny, steps=45, measure_every=45)
    records = list(train(r, tmp_path, report_every=15))
    assert [p.step for p in records] == [15, 30, 45]
    assert records[-1].loss < records[0].loss
    assert all(p.card is None for p in records[:-1])
    card = json.loads((tmp_path / "tiny.json").read_text())
    assert card["complete"] and card["steps"] == 45 and card["images_seen"] == 45 * 18
    assert card["device"] == "cpu" and card["precision"] == "float32" and card["seconds"] > 0
    assert card["recipe"]["data_seed"] != card["recipe"]["held_out_seed"]
    assert card["parameters"] == sum(p.numel() for p in Tiny().parameters())
    assert {**records[-1].card, "input_size": [3, 32, 32]} == card
    net = Tiny()
    net.load_state_dict(weights(tmp_path))
    total, each = measure(net, "tiny", seed=0, count=36)
    assert round(total, 5) == card["held_out_accuracy"]
    assert [round(value, 4) for value in each] == list(card["held_out_per_class"].values())
    assert total == pytest.approx(sum(each) / 18)
    with safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        assert file.metadata() == {"architecture": "tiny", "recipe": "tiny"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_measuring_leaves_the_network_as_it_was(tiny):
    net = Tiny()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure(net, "tiny", seed=0, count=18)
    assert net.training and same(before, net.state_dict()) and all(p.grad is None for p in net.parameters())


def test_a_resumed_run_equals_the_uninterrupted_one(tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(tiny, whole))
    # Stopped after step 4 without any chance to clean up, as by SIGKILL: the generator is simply not resumed.
    first = train(tiny, parts, report_every=2)
    assert next(first).step == 2 and next(first).step == 4 and next(first).step == 6
    torch.manual_seed(12345)  # another life of the process
    resumed = list(train(tiny, parts, resume=True, report_every=2))
    assert [p.step for p in resumed] == [6, 8, 10, 12]  # from the save at 4, not from the start
    assert same(weights(whole), weights(parts))
    other = tmp_path / "other"
    list(train(replace(tiny, seed=1), other))
    assert not same(weights(whole), weights(other))  # the comparison can fail


def test_a_run_killed_by_the_system_is_resumed(tmp_path):
    """SIGKILL after step 3, one past a save: the files are whole, and the rest makes the weights of one run."""
    program = (
        "import os, signal, sys, torch; torch.set_num_threads(1)\n"
        "from dataclasses import replace; from sp_core.training import RECIPES, train\n"
        "r = replace(RECIPES['textures-resnet'], steps=4, batch=2, held_out=18, measure_every=2)\n"
        "for p in train(r, sys.argv[1], report_every=1):\n"
        "    if p.step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], env=PLAIN, check=False)
    assert done.returncode == -9
    assert json.loads((tmp_path / "a" / "textures-resnet.json").read_text())["complete"] is False
    r = replace(RECIPES["textures-resnet"], steps=4, batch=2, held_out=18, measure_every=2)
    assert [p.step for p in train(r, tmp_path / "a", resume=True, report_every=1)] == [3, 4]
    list(train(r, tmp_path / "b"))
    assert same(weights(tmp_path / "a", "textures-resnet"), weights(tmp_path / "b", "textures-resnet"))


def test_a_state_of_another_recipe_is_refused(tiny, tmp_path):
    next(train(tiny, tmp_path, report_every=4))
    with pytest.raises(SpError, match=r"tiny.state.pt' was made with seed = 0, not 3; give the same options"):
        next(train(replace(tiny, seed=3), tmp_path, resume=True))
    (tmp_path / "tiny.state.pt").write_bytes(b"not a state")
    with pytest.raises(SpError, match=r"cannot be read as a training state; delete it"):
        next(train(tiny, tmp_path, resume=True))


def test_the_command_trains_and_answers_in_json(tiny, tmp_path, capsys):
    status = cli.main(
        ["train", "tiny", "--device", "cpu", "--steps", "3", "--seed", "5", "--out", str(tmp_path), "--json"]
    )
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert status == 0 and answer["steps"] == 3 and answer["seed"] == 5 and answer["folder"] == str(tmp_path)
    assert "3/3" in err and "text" not in answer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["textures-alexnt"], "'textures-alexnt' is not a training recipe; did you mean textures-alexnet"),
        (["tiny", "--steps", "0"], "steps must be at least 1, got 0"),
        (["tiny", "--device", "abacus"], "device must be 'cpu' or 'cuda', got 'abacus'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tiny, arguments, message, tmp_path, capsys):
    assert cli.main(["train", *arguments, "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["train", "tiny", "--device", "cpu", "--steps", "1", "--out", str(tmp_path / "file")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err


def _imported(statement):
    """Which of the heavy packages ``statement`` brings into a fresh Python."""
    program = f"{statement}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=PLAIN)
    return done.stdout.strip()


def test_training_imports_nothing_heavy():
    assert _imported("import sp_core.commands.train, sp_core.training, sp_core.zoo, sp_core.datasets.textures") == "[]"


def test_the_check_of_imports_can_fail():
    assert _imported("import sp_core.errors, plotly") == "['plotly']"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_bundled_checkpoint_is_what_its_card_says(name):
    card = json.loads((BUNDLED / f"{name}.json").read_text())
    assert card["complete"] and card["held_out_accuracy"] >= 0.95
    assert card["held_out_images"] >= 4_000 and len(card["held_out_per_class"]) == 18
    assert min(card["held_out_per_class"].values()) >= 0.85
    made = recipe(name)
    assert Recipe(**card["recipe"]) == made and card["steps"] == made.steps  # the recipe in the code makes this file
    path = BUNDLED / f"{name}.safetensors"
    assert path.stat().st_size <= 4e6
    with safe_open(path, "pt") as file:
        assert file.metadata()["architecture"] == card["architecture"]
    net = zoo.create(card["architecture"])
    net.load_state_dict(load_file(path))
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    count = 360
    total, _ = measure(net, card["architecture"], seed=made.held_out_seed, count=count)
    accuracy = card["held_out_accuracy"]
    # Three standard errors of a share of 360 images.
    assert abs(total - accuracy) < 3 * math.sqrt(accuracy * (1 - accuracy) / count) + 1e-4
    fresh, _ = measure(net, card["architecture"], seed=777, count=90)  # a seed that nobody has looked at
    assert fresh > 0.92


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_first_layer_has_few_dead_or_noisy_filters(name):
    """Energy below half of the highest frequency: about a fifth of white noise, nearly all of an edge or a grating.

    Only filters of 7 × 7 and more have enough frequencies to tell.
    """
    first = next(v for v in load_file(BUNDLED / f"{name}.safetensors").values() if v.ndim == 4)
    norms = first.flatten(1).norm(dim=1)
    assert float((norms < 0.02 * norms.max()).float().mean()) <= 0.1
    if first.shape[-1] >= 7:
        assert float((_smoothness(first) > 0.45).float().mean()) >= 0.9
        assert float((_smoothness(torch.randn_like(first)) > 0.45).float().mean()) == 0


def _smoothness(filters):
    """Share of a filter's energy below half of the highest frequency, ``[n]``."""
    power = torch.fft.fft2(filters, s=(32, 32)).abs().square().sum(1)
    f = torch.fft.fftfreq(32)
    low = (f[:, None] ** 2 + f[None] ** 2).sqrt() < 0.25
    return (power * low).sum((1, 2)) / power.sum((1, 2))
