"""One pass for the patch index and the features: the bytes of two passes, whoever is killed, stopped or behind."""

import json
from pathlib import Path

import pytest

import sp_core as sp
from sp_core.cli import main
from sp_core.errors import SpError
from sp_core.nearest import Features, features
from sp_core.patches import build, store
from tests.killing import killed
from tests.test_patches import Net, Noise, _net

ROOT = Path(__file__).resolve().parents[1]
# A module called twice, what an in-place sum overwrites, and one that the index leaves out.
LAYERS = ["relu", "block.1", "relu#2", "pool", "head"]
BEHIND = [(150, 0), (100, 0), (100, 100), (40, 150), (0, 150), (150, 100), (150, 150)]  # images of index and features


@pytest.fixture(scope="module")
def net():
    return _net()


def _bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _both(net, data, home, **options):
    """One pass for both; its records."""
    options = {"batch": 8, "feature_layers": LAYERS} | options
    return list(sp.build_patch_index(net, data, home / "index", 4, features=home / "features", **options))


def _apart(net, data, home, batch=8):
    """Two passes."""
    list(sp.build_patch_index(net, data, home / "index", 4, batch=batch))
    list(sp.build_features(net, data, home / "features", LAYERS, batch=batch))
    return _all(home)


def _all(home):
    return _bytes(home / "index"), _bytes(home / "features")


@pytest.fixture(scope="module")
def whole(net, tmp_path_factory):
    """The bytes of two passes over 150 images."""
    return _apart(net, Noise(150), tmp_path_factory.mktemp("apart"))


@pytest.mark.parametrize("batch", [None, 6, 8, 64, 100])
def test_the_bytes_of_two_passes(net, tmp_path, batch):
    apart = _apart(net, Noise(150), tmp_path / "apart", batch)
    records = _both(net, Noise(150), tmp_path / "one", batch=batch)
    assert _all(tmp_path / "one") == apart
    assert (records[-1].done, records[-1].fresh, records[-1].saved) == (150, 150, True)


def test_every_layer_of_the_index_or_not_by_default(net, tmp_path):
    list(sp.build_features(net, Noise(40), tmp_path / "apart", batch=8))
    _both(net, Noise(40), tmp_path, layers=["stem"], feature_layers=None)
    assert _bytes(tmp_path / "features") == _bytes(tmp_path / "apart")
    assert sp.PatchIndex(tmp_path / "index").layers == ("stem",)


def test_images_go_through_the_network_once(net, tmp_path, monkeypatch):
    passes, forward = [], Net.forward

    def counted(self, x):
        passes.append(len(x))
        return forward(self, x)

    data = Noise(150)
    steps = sp.build_patch_index(net, data, tmp_path / "i", 4, batch=8, features=tmp_path / "f", feature_layers=LAYERS)
    monkeypatch.setattr(Net, "forward", counted)
    list(steps)
    assert passes == [8] * 18 + [6]
    assert data.asked == list(range(150))


class Killed(BaseException):
    """No builder expects it."""


@pytest.mark.parametrize("saving", ["after every block", "seldom"])
def test_killed_in_any_writing_it_ends_with_the_same_bytes(net, tmp_path, monkeypatch, whole, saving):
    monkeypatch.setattr(build, "SAVE_SECONDS", 0.0 if saving == "after every block" else 1e9)
    monkeypatch.setattr(build, "SAVE_SHARE", 0)
    written, deadly = [], [-1]

    def replace(path, data):
        written.append(path.name)
        if len(written) == deadly[0]:
            path.with_name(f".{path.name}.1.part").write_bytes(data[: len(data) // 2])
            raise Killed
        real(path, data)

    real = store.replace
    monkeypatch.setattr(store, "replace", replace)
    monkeypatch.setattr(features, "replace", replace)
    _both(net, Noise(150), tmp_path / "counted")
    count = len(written)
    assert count == (14 if saving == "after every block" else 10)
    for deadly[0] in range(1, count + 1):
        home = tmp_path / str(deadly[0])
        written.clear()
        with pytest.raises(Killed):
            _both(net, Noise(150), home)
        written.clear()
        deadly[0] = -1
        _both(net, Noise(150), home)
        assert _all(home) == whole


KILLED = """
import sys, time, torch
sys.path[:0] = [{root!r}]
from tests.test_one_pass import LAYERS, Noise, _net
from sp_core.patches import build
import sp_core as sp
build.SAVE_SECONDS = build.SAVE_SHARE = 0
for record in sp.build_patch_index(_net(), Noise(640), sys.argv[1] + "/index", 4, batch=8,
                                   features=sys.argv[1] + "/features", feature_layers=LAYERS):
    print(record.done, flush=True)
    time.sleep(0.01)
"""


def test_killed_by_a_signal_it_ends_with_the_same_bytes(net, tmp_path):
    apart = _apart(net, Noise(640), tmp_path / "apart")
    killed(KILLED.format(root=str(ROOT)), str(tmp_path), past=200)
    there = min(sp.PatchIndex(tmp_path / "index").done, Features(tmp_path / "features").done)
    assert 128 <= there < 640, "it was killed in the middle, and both can be read"
    data = Noise(640)
    _both(net, data, tmp_path)
    assert min(data.asked) == there
    assert _all(tmp_path) == apart


@pytest.mark.parametrize("steps", [1, 3, 8, 9, 13, 19])
def test_stopped_between_two_batches_no_more_than_a_block_is_looked_at_again(net, tmp_path, whole, steps):
    home = tmp_path
    records = sp.build_patch_index(
        net, Noise(150), home / "index", 4, batch=8, features=home / "features", feature_layers=LAYERS
    )
    done = [next(records).done for _ in range(steps)][-1]
    records.close()
    assert done == min(8 * steps, 150) == sp.PatchIndex(home / "index").done
    data = Noise(150)
    _both(net, data, home)
    assert data.asked == list(range(done // 64 * 64 if done < 150 else 150, 150))
    assert _all(home) == whole


@pytest.mark.parametrize(("index", "vectors"), BEHIND)
def test_whoever_is_behind_catches_up(net, tmp_path, whole, index, vectors):
    """Made apart over the first images, of which the data set then had no more: it has grown too."""
    if index:
        list(sp.build_patch_index(net, Noise(index), tmp_path / "index", 4, batch=8))
    if vectors:
        list(sp.build_features(net, Noise(vectors), tmp_path / "features", LAYERS, batch=8))
    data = Noise(150)
    last = _both(net, data, tmp_path)[-1]
    assert _all(tmp_path) == whole
    assert (last.done, last.saved) == (150, True)
    begin = min(index, vectors if vectors == 150 else vectors // 64 * 64)
    assert data.asked == list(range(begin, 150)) and last.fresh == 150 - begin


def test_index_and_features_grow_together(net, tmp_path, whole):
    _both(net, Noise(100), tmp_path)
    data = Noise(150)
    _both(net, data, tmp_path)
    assert min(data.asked) == 64, "the block that the end cut short is made again"
    assert _all(tmp_path) == whole


def test_begun_in_other_batches_the_features_take_those_of_the_index(net, tmp_path):
    list(sp.build_features(net, Noise(100), tmp_path / "features", LAYERS, batch=48))
    _both(net, Noise(150), tmp_path)
    found = Features(tmp_path / "features")
    assert found.images.tolist() == list(range(150)) and sorted(_bytes(tmp_path / "features")) == [
        "block-00000000-00000064.safetensors",
        "block-00000064-00000128.safetensors",
        "block-00000128-00000150.safetensors",
        "features.json",
    ]


@pytest.mark.parametrize("damaged", [{3, 70, 149}, set(range(64, 128)), set(range(150))])
def test_damaged_pictures_are_left_out_of_both(net, tmp_path, damaged):
    apart = _apart(net, Noise(150, damaged=damaged), tmp_path / "apart")
    last = _both(net, Noise(150, damaged=damaged), tmp_path / "one")[-1]
    assert _all(tmp_path / "one") == apart
    found = Features(tmp_path / "one" / "features")
    assert found.images.tolist() == sorted(set(range(150)) - damaged) and last.skipped == len(damaged)
    assert found.vectors("head").shape == (150 - len(damaged), 4)


def test_what_does_not_go_together_is_said_and_nothing_is_lost(net, tmp_path):
    _both(net, Noise(40), tmp_path)
    before = _all(tmp_path)
    for options in ({"engine": "ray"}, {"start": 8}, {"stop": 16}):
        with pytest.raises(SpError, match=r"`features` are of a whole data set and by the engine local; got images"):
            _both(net, Noise(40), tmp_path, resume=False, **options)
    with pytest.raises(SpError, match="`feature_layers` are kept in the folder `features`; name one"):
        sp.build_patch_index(net, Noise(40), tmp_path / "index", feature_layers=["head"])
    with pytest.raises(SpError, match="'heat' is not one of the"):
        _both(net, Noise(40), tmp_path, resume=False, feature_layers=["heat"])
    with pytest.raises(SpError, match="features of another layers"):
        _both(net, Noise(40), tmp_path, feature_layers=["head"])
    with pytest.raises(SpError, match="another data set"):
        _both(net, Noise(40, seed=1), tmp_path)
    with pytest.raises(SpError, match="`batch` must be at least 1 image; got 0"):
        sp.build_features(net, Noise(40), tmp_path / "features", batch=0)
    assert _all(tmp_path) == before
    assert _both(net, Noise(30), tmp_path, resume=False, feature_layers=["head"])[-1].done == 30
    assert Features(tmp_path / "features").layers == ("head",)


def test_the_verb_leaves_features_that_neighbours_answers_from(tmp_path, capsys):
    net, out, folder = "bundled:textures-vgg", str(tmp_path / "index"), str(tmp_path / "features")
    arguments = ["index", net, "--count", "70", "--out", out, "--features", folder]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == folder
    before = _bytes(folder)
    assert main(["neighbours", net, "--count", "70", "--folder", folder, "--number", "5", "--json"]) == 0
    assert [row["space"] for row in json.loads(capsys.readouterr().out)["neighbours"]] == list(Features(folder).spaces)
    assert _bytes(folder) == before, "nothing was left to do"
    assert main([*arguments, "--feature-layers", "features.0, features.99", "--fresh"]) == 2
    assert "'features.99' is not one of the" in capsys.readouterr().err
    assert _bytes(folder) == before, "a mistake throws nothing away"
    assert main([*arguments, "--feature-layers", "features.0,features.3", "--fresh"]) == 0
    assert f"features in {folder}" in capsys.readouterr().out
    assert Features(folder).layers == ("features.0", "features.3")
