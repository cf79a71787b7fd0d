"""Uploads: several at once, a checkpoint in several files, and that they stay with the session that brought them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

import sp_core as sp

ROOT = Path(__file__).resolve().parents[1]
BINARY = "application/octet-stream"


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def network(classes, seed=0):
    torch.manual_seed(seed)
    return sp.zoo.create("textures-vgg", classes=classes).state_dict()


def opened() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()


def upload(app, *files):
    app.sidebar.file_uploader[0].set_value([(name, data, BINARY) for name, data in files])
    app.run()
    assert not app.exception
    return app


def away(app):
    """Choose what is not an upload: the test driver asks for labels outside of the session, where uploads have none."""
    app.sidebar.selectbox[0].set_value("bundled:textures-vgg").run()


def labels(app) -> list[str]:
    return [option for option in app.sidebar.selectbox[0].options if option.endswith("(yours)")]


def line(app) -> str:
    return " ".join(caption.value for caption in app.sidebar.caption)


def test_each_of_several_files_is_a_choice_and_the_newest_is_chosen():
    one, two, three = (("one.pth", saved(network(3))), ("two.pth", saved(network(4))), ("three.pth", saved(network(5))))
    app = upload(opened(), one, two)
    assert not app.error and labels(app) == ["one.pth (yours)", "two.pth (yours)"] and "4 classes" in line(app)
    away(app)
    upload(app, one, two, three)
    assert labels(app)[-1] == "three.pth (yours)" and "5 classes" in line(app)
    away(app)
    upload(app, one, three)
    assert labels(app) == ["one.pth (yours)", "three.pth (yours)"] and "18 classes" in line(app), "nothing new came"


@pytest.fixture
def sharded():
    state = network(6)
    names = list(state)
    parts = {
        "model-00001-of-00002.safetensors": {name: state[name] for name in names[:7]},
        "model-00002-of-00002.safetensors": {name: state[name] for name in names[7:]},
    }
    where = {name: part for part, tensors in parts.items() for name in tensors}
    index = json.dumps({"metadata": {}, "weight_map": where}).encode()
    return ("model.safetensors.index.json", index), *((name, save(tensors)) for name, tensors in parts.items())


def test_an_index_and_its_shards_are_one_network(sharded):
    app = upload(opened(), *sharded)
    assert not app.error and labels(app) == ["model.safetensors.index.json (yours)"]
    assert "6 classes" in line(app) and "zoo:textures-vgg" in line(app).replace("\\", "")


def test_shards_that_come_later_complete_it(sharded):
    index, first, second = sharded
    app = upload(opened(), index, first)
    assert any("model-00002-of-00002.safetensors" in error.value for error in app.error)
    away(app)
    upload(app, index, first, second)
    assert not app.error and "6 classes" in line(app)


def test_two_indexes_alike_with_other_shards_are_two_networks(sharded):
    index, first, second = sharded
    app = upload(opened(), *sharded)
    before = app.session_state["net"]
    other = network(6, seed=1)
    where = json.loads(index[1])["weight_map"]
    shards = [(part, save({key: other[key] for key in where if where[key] == part})) for part, _ in (first, second)]
    app = upload(opened(), index, *shards)
    assert not app.error and app.session_state["net"] != before


def test_one_viewers_upload_is_not_anothers():
    app = upload(opened(), ("mine.pth", saved(network(3))))
    assert labels(app) and not labels(opened())
    other = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    other.session_state["net"] = app.session_state["net"]
    other.run()
    assert any("is not uploaded in this session" in error.value for error in other.error)


def test_the_largest_file_is_said():
    assert any("At most 200 MB a file" in caption.value for caption in opened().sidebar.caption)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.pth", b""),
        ("list.index.json", b"[1, 2]"),
        ("odd.index.json", b'{"weight_map": 3}'),
        ("deep.index.json", b'{"weight_map": ' + b"[" * 100_000),
        ("away.index.json", b'{"weight_map": {"a": "../../etc/passwd"}}'),
    ],
)
def test_a_file_that_is_none_is_a_sentence(name, data):
    app = upload(opened(), (name, data))
    assert app.error and all("\n" not in error.value for error in app.error)
