"""The page of maximally activating patches: it builds an index while one watches, and then answers from it."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import sp_core as sp
from sp_core import nearest
from sp_core.patches import cache_folder
from tests import driver
from tests.driver import served


@pytest.fixture(autouse=True, scope="module")
def _folders(tmp_path_factory):
    """A cache of our own, and a shared folder with forty pictures in two classes."""
    home = tmp_path_factory.mktemp("home")
    (home / "shared").mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(home / "shared" / "two.zip", "w") as archive:
        for i in range(40):
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(home / "one.png")
            archive.write(home / "one.png", f"{('left', 'right')[i % 2]}/{i:02d}.png")
    with served(home / "shared", home / "cache"):
        yield


def opened(**state) -> AppTest:
    chosen = {"net": "bundled:textures-vgg", "data": "folder:two.zip"}
    return driver.opened("patches.py", timeout=240, **(chosen | state))


def test_it_builds_an_index_and_answers_from_it():
    app = opened()
    assert not app.exception and not app.error
    net = sp.load("bundled:textures-vgg", device="cpu")
    index = sp.PatchIndex(cache_folder(net, "folder:two.zip"))
    assert index.done == 40 and index.classes == ("left", "right")
    held = nearest.Features(nearest.cache_folder(net, "folder:two.zip", nearest.default_layers(net)))
    assert held.done == 40 and held.fits(net), "what the page of neighbours needs has come with it"
    app.selectbox("layer").set_value("features.3").run()
    app.number_input("channel").set_value(5).run()
    assert [element.value for element in app.subheader] == ["Channel 5 of features.3"]
    best = index.top("features.3:5")[0]
    assert any(f"activation {best.activation:.3g}, percentile 100" in element.proto.body for element in app.get("html"))
    assert any("may have been trained on other images" in element.value for element in app.caption), (
        "the images are not the network's own"
    )
    app.toggle("guided").set_value(True).run()
    assert not app.exception and not app.error


def test_neighbours_answer_from_what_was_left_on_the_way(monkeypatch):
    opened(net="bundled:textures-resnet")
    monkeypatch.setattr("pages.neighbour_views.held._build", None)  # calling it would be an error on the page
    app = driver.opened("neighbours.py", timeout=240, net="bundled:textures-resnet", data="folder:two.zip")
    assert not driver.complaints(app)
    assert any("out of 40 images of" in caption.value for caption in app.caption)


def test_features_that_cannot_be_gone_on_with_do_not_keep_one_from_the_patches():
    net = sp.load("bundled:textures-alexnet", device="cpu")
    folder = nearest.cache_folder(net, "folder:two.zip", nearest.default_layers(net))
    list(sp.build_features(net, sp.datasets.open("textures", count=3), folder))
    app = opened(net="bundled:textures-alexnet")
    assert not driver.complaints(app)
    assert sp.PatchIndex(cache_folder(net, "folder:two.zip")).done == 40
    assert nearest.Features(folder).done == 3


@pytest.mark.parametrize("source", ["folder:../home", "folder:/etc", "folder:none", "zip:0123", "folder:", "what"])
def test_only_what_the_owner_shares_can_be_opened(source):
    from pages.patch_views import data

    with pytest.raises(sp.SpError, match="is not a data set of this server"):
        data.dataset(source)
    assert data.sources() == ["textures", "folder:two.zip"]
