"""The identity card's page: what a file says about itself is shown, and never followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

import sp_core as sp
from pages.card_views import facts

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setenv("SP_FOLDER", str(tmp_path))
    return tmp_path


def opened(source: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.session_state["net"] = source
    app.run()
    return app.switch_page("pages/card.py").run()


def html(app: AppTest) -> str:
    return " ".join(element.proto.body for element in app.main.get("html"))


def test_a_trained_network_is_sound_and_says_how_it_was_trained():
    app = opened("bundled:textures-alexnet")
    assert not app.exception and not app.error
    assert any("Nothing odd was found" in element.value for element in app.success)
    assert "held out accuracy" in html(app) and "zoo:textures-alexnet" in html(app)
    assert {"Parameters", "Size", "Classes"} <= {metric.label for metric in app.metric}


def test_an_untrained_network_is_called_so():
    app = opened("zoo:textures-vgg")
    assert any("layers look untrained" in element.value for element in app.warning)


def test_markup_in_a_file_is_shown_not_followed(shared):
    state = sp.zoo.create("textures-vgg", classes=7).state_dict()
    torch.save({"state_dict": state, "epoch": 7, "note": "<img src=x onerror=alert(1)>"}, shared / "run.pth")
    app = opened("path:run.pth")
    assert not app.exception and not app.error
    assert "&lt;img src=x" in html(app) and "<img src=x" not in html(app)
    assert facts.unmarked("![a](b) layer_1") == r"\!\[a\](b) layer\_1"


def test_a_broken_network_is_said_to_be_broken(shared):
    state = sp.zoo.create("textures-vgg", classes=7).state_dict()
    state["classifier.bias"][0] = float("nan")
    torch.save(state, shared / "nan.pth")
    app = opened("path:nan.pth")
    assert not app.exception
    errors = " ".join(element.value for element in app.error).replace("\\", "")
    assert "classifier.bias: 1 of 7 numbers are NaN" in errors and "scores are NaN" in errors


def test_rows_say_what_is_guessed_and_what_is_unknown():
    net = sp.Network(torch.nn.Sequential(torch.nn.Conv2d(1, 2, (3, 5))), input_size=(1, 9, 9))
    card = sp.describe(net)
    rows = dict(facts.rows(card))
    assert rows["Architecture"] == "unknown" and rows["Normalisation"].startswith("none")
    assert facts.layers(card)[0]["receptive field"] == "3×5" and facts.layers(card)[0]["output"] == "2×7×5"
    guessed = card | {"warnings": ["Input size 9 is guessed."], "input": card["input"] | {"mean": [0.5], "std": None}}
    assert "guessed" in dict(facts.rows(guessed))["Input"]
    assert dict(facts.rows(guessed))["Normalisation"].startswith("(x − 0.5) / 1")
    assert json.dumps(facts.layers(card))
