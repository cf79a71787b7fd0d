"""Every page, run by Streamlit's test driver from ``app.py``: no exception, no complaint, any kind of network."""

from __future__ import annotations

import pytest
import torch
from streamlit.testing.v1 import AppTest

import sp_core as sp
from tests.driver import ROOT, complaints, opened, served

PAGES = sorted(path.name for path in (ROOT / "pages").glob("*.py"))
BUNDLED = ["textures-alexnet", "textures-vgg", "textures-resnet"]


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    """A folder that the server's owner shares, with an untrained checkpoint and something that is none."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    torch.save({"state_dict": sp.zoo.create("textures-vgg", classes=7).state_dict()}, folder / "mine.pth")
    torch.save({"state_dict": torch.nn.Sequential(torch.nn.Linear(3, 2)).state_dict()}, folder / "linear.pth")
    (folder / "junk.pth").write_bytes(b"no checkpoint at all")
    with served(folder):
        yield


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", BUNDLED)
def test_every_page_opens_with_every_bundled_network(page, name):
    app = opened(page, net=f"bundled:{name}")
    assert not complaints(app)
    assert app.title and app.title[0].value


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_a_checkpoint_of_ones_own(page):
    app = opened(page, net="path:mine.pth", image="scene:zone-plate")
    assert not complaints(app)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("path:junk.pth", "junk.pth"),
        ("file:0123456789abcdef", "0123456789abcdef"),
        ("bundled:nothing", "nothing"),
        ("nonsense", "nonsense"),
        ("path:../../etc/passwd", "passwd"),
    ],
)
def test_every_page_says_in_a_sentence_what_is_wrong_with_a_network(page, source, words):
    app = opened(page, net=source)
    assert not app.exception
    assert app.error and any(words in element.value for element in app.error)
    assert all("\n" not in element.value and len(element.value) < 600 for element in app.error)


@pytest.mark.parametrize("image", ["upload:0123456789abcdef", "scene:none", "nonsense"])
def test_a_picture_that_is_not_here_is_said(image):
    app = opened("home.py", image=image)
    assert not app.exception and app.error


def test_a_page_opened_without_the_frame_still_has_it():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.switch_page("pages/filters.py").run()
    assert not complaints(app)
    assert [box.label for box in app.sidebar.selectbox][:2] == ["Network", "Image"]


def test_uploads_are_chosen_and_shown(tmp_path):
    path = tmp_path / "mine.pth"
    torch.manual_seed(1)
    torch.save(sp.zoo.create("textures-resnet", classes=5).state_dict(), path)
    app = opened("home.py")
    app.sidebar.file_uploader[0].upload("mine.pth", path.read_bytes(), "application/octet-stream")
    app.run()
    assert not complaints(app)
    assert app.session_state["net"].startswith("file:")
    assert any("5 classes" in caption.value for caption in app.sidebar.caption)


def test_an_upload_that_is_no_picture_is_said_and_nothing_is_lost():
    app = opened("home.py")
    app.sidebar.file_uploader[1].upload("cat.png", b"not a picture", "image/png")
    app.run()
    assert not app.exception and app.error
    app.sidebar.selectbox[1].set_value("scene:landscape").run()
    assert not complaints(app)


def test_numbers_from_another_layer_are_brought_into_range():
    app = opened("filters.py", channel=10_000)
    assert not complaints(app)


def test_the_start_page_leads_to_every_other_page():
    links = [link.proto.page for link in opened("home.py").main.get("page_link")]
    assert len(links) == len(PAGES) - 1
    assert {f"{link}.py" for link in links} == set(PAGES) - {"home.py"}


def test_a_script_that_would_wait_for_itself_is_told_so():
    from pages.ui import cache

    with cache.turn(), pytest.raises(RuntimeError, match="holds torch's turn already"), cache.turn():
        pass
    with cache.turn():  # it is free again
        pass
