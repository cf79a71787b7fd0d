import json

import numpy as np
import pytest
from PIL import Image

import sp_core as sp
from sp_core.cli import main
from sp_core.commands import attribute as attribute_verb
from sp_core.figures import maps
from sp_core.methods import METHODS

SIGNED = np.zeros((3, 4, 5))
SIGNED[0, 1, 2], SIGNED[1, 3, 4] = 2.0, -2.0


def test_views_by_hand():
    assert maps.reduced(SIGNED, "signed")[1, 2] == 2
    assert maps.reduced(SIGNED, "absolute")[3, 4] == 2
    assert maps.reduced(SIGNED, "rgb").shape == (3, 4, 5)
    signed = np.asarray(maps.picture(SIGNED))
    assert signed.shape == (4, 5, 3)
    assert signed[0, 0].tolist() == [247, 247, 247]  # zero is near white
    assert signed[1, 2].tolist() == [103, 0, 31]  # the end of the red side
    assert signed[3, 4].tolist() == [5, 48, 97]  # the end of the blue side
    rgb = np.asarray(maps.picture(SIGNED, "rgb"))
    assert rgb[0, 0].tolist() == [128, 128, 128]
    assert rgb[1, 2].tolist() == [255, 128, 128]
    assert rgb[3, 4].tolist() == [128, 0, 128]
    absolute = np.asarray(maps.picture(SIGNED, "absolute"))
    assert absolute[1, 2].tolist() == absolute[3, 4].tolist() == [253, 231, 37]
    assert np.asarray(maps.picture(np.full((1, 2, 2), np.nan), "rgb")).tolist() == [[[128] * 3] * 2] * 2
    assert np.asarray(maps.picture(np.full((1, 2, 2), np.nan))).tolist() == [[[128] * 3] * 2] * 2
    with pytest.raises(sp.SpError, match="got 'jet'"):
        maps.picture(SIGNED, "jet")


def test_a_common_scale_keeps_maps_comparable_and_names_its_gain():
    found = maps.scales({"a": SIGNED, "b": SIGNED * 0.9, "c": SIGNED / 3000, "zero": SIGNED * 0})
    assert found["a"] == found["b"] == maps.Scale(2.0)
    assert found["c"] == maps.Scale(2.0 / 2000, 2000)
    assert maps.scales({"a": SIGNED, "b": SIGNED / 7})["b"] == maps.Scale(2.0 / 5, 5)
    assert maps.scales({"a": SIGNED, "b": SIGNED / 5})["b"] == maps.Scale(2.0)
    assert found["zero"] == maps.Scale(2.0)
    a, c = maps.picture(SIGNED, scale=found["a"]), maps.picture(SIGNED / 2000, scale=found["c"])
    assert a.tobytes() == c.tobytes()
    assert "(shown ×2,000)" in maps.ends("signed", found["c"])
    own = maps.scales({"a": SIGNED, "c": SIGNED / 3000}, shared=False)
    assert own["c"].limit == pytest.approx(2 / 3000)
    assert maps.own_limit(SIGNED * 0) == 0
    assert [maps.short(value) for value in (0.12345, 1084.2, 3e7)] == ["0.123", "1084", "3e+07"]


def test_window_holds_the_signal():
    values = np.zeros((3, 60, 40))
    values[1, 50:58, 2:5] = 1
    left, top, right, bottom = maps.window([values, values * 0])
    assert right - left == bottom - top == 20
    assert left == 0
    assert bottom == 60
    assert top <= 50
    assert maps.window([np.ones((1, 60, 40))]) is None
    assert maps.window([np.zeros((1, 60, 40))]) is None


def test_overlay_leaves_the_image_grey_where_the_map_is_zero():
    image = Image.new("RGB", (5, 4), (200, 40, 40))
    pixels = np.asarray(maps.overlay(image, SIGNED)).astype(int)
    assert np.ptp(pixels[0, 0]) == 0
    assert pixels[1, 2, 0] > pixels[1, 2, 2] + 50
    assert pixels[3, 4, 2] > pixels[3, 4, 0] + 50


def test_side_by_side_has_transparent_gaps():
    row = maps.side_by_side([Image.new("RGB", (4, 3)), Image.new("RGB", (2, 5))], gap=3)
    assert row.size == (9, 5)
    assert row.getpixel((5, 0)) == (0, 0, 0, 0)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


SOURCE = "bundled:textures-alexnet"


def run(capsys, *words):
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if status == 0 else err


def test_backprop_verb(capsys, tmp_path, picture):
    out = tmp_path / "a.png"
    status, answer = run(capsys, "backprop", SOURCE, "--image", picture, "--out", str(out))
    assert status == 0
    assert answer["rule"] == "guided"
    assert answer["shape"] == [1, 3, 64, 64]
    assert answer["rectifiers"] == 5
    assert answer["min"] < 0 < answer["max"]
    assert answer["target"] == answer["prediction"]["name"]
    assert sp.open_image(out).size == (64, 64)
    status, answer = run(
        capsys, "backprop", SOURCE, "--image", picture, "--rule", "all", "--target", "3", "--out", str(out)
    )
    assert [row["rule"] for row in answer["rules"]] == ["gradient", "deconvnet", "guided"]
    assert sp.open_image(out).size == (64 * 3 + 12, 64)
    net = sp.load(SOURCE)
    layer = next(layer for layer in net.layers if layer.kind == "MaxPool2d")
    status, answer = run(
        capsys, "backprop", SOURCE, "--image", picture, "--target", f"{layer.name}:7", "--out", str(out)
    )
    assert answer["target"].startswith(f"{layer.name}:7@")
    status, error = run(capsys, "backprop", SOURCE, "--image", picture, "--target", "nowhere:7", "--out", str(out))
    assert status == 2
    assert "'nowhere' is not one of" in error
    assert error.count("\n") == 1


def test_attribute_verb(capsys, tmp_path, picture):
    assert set(attribute_verb.METHODS) == set(METHODS)
    out = str(tmp_path / "a.png")
    words = ("attribute", SOURCE, "--image", picture, "--out", out)
    status, answer = run(capsys, *words, "--method", "integrated_gradients", "--set", "steps=8", "--test")
    assert status == 0
    assert answer["settings"] == {"baseline": "black", "steps": 8}
    assert answer["sum"] - answer["expected_sum"] == pytest.approx(answer["completeness_gap"], rel=1e-3, abs=1e-3)
    assert 0 <= answer["test"]["deletion"] <= 1
    assert -1 <= answer["test"]["correlation_all_shuffled"] <= 1
    status, answer = run(capsys, *words, "--method", "grad_cam")
    assert answer["min"] >= 0
    status, error = run(capsys, *words, "--method", "occlusion", "--set", "window")
    assert status == 2
    assert "NAME=VALUE" in error
