"""The sidebar's picture: the part that the network sees is framed, and what was done to the file is said."""

import os

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import sp_core as sp
from tests.driver import opened


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    torch.save({"strange.weight": torch.rand(4, 13, 3, 3), "strange.bias": torch.rand(4)}, tmp_path / "loose.pth")
    monkeypatch.setenv("SP_FOLDER", str(tmp_path))
    monkeypatch.setenv("SP_CACHE", str(tmp_path / "cache"))
    assert os.environ["SP_FOLDER"] == str(tmp_path)


def captions(part) -> str:
    return "\n".join(caption.value for caption in part.caption)


@pytest.mark.parametrize(
    ("net", "beside", "below"),
    [
        ("zoo:mnist-example", "at 28×28 pixels in grey.", "Its one channel is the luminance of the picture."),
        ("bundled:textures-alexnet", "at 64×64 pixels.", "resized and cropped to 64×64 pixels."),
    ],
)
def test_what_the_network_sees_is_said(net, beside, below):
    app = opened(net=net, image="scene:landscape")
    assert not app.exception and not app.error
    assert "The network sees" in captions(app.sidebar) and beside in captions(app.sidebar)
    assert below in captions(app)
    assert ("The mean of its training images is 0.13" in captions(app)) == ("mnist" in net)


@pytest.mark.parametrize("net", ["path:loose.pth", "bundled:nothing"])
def test_without_a_network_that_can_see_there_is_a_picture_and_no_frame(net):
    app = opened(net=net)
    assert not app.exception
    assert "The network sees" not in captions(app.sidebar)
    assert any("The chosen picture: texture 0." in block.proto.body for block in app.sidebar.get("html"))


def preview(size: tuple[int, int], fed: tuple[int, int, int], notes: tuple[str, ...] = ()) -> AppTest:
    def script(size, fed, notes):
        import torch
        from PIL import Image

        import sp_core as sp
        from pages.ui import preview

        net = sp.Network(torch.nn.Conv2d(fed[0], 2, 3), input_size=fed)
        preview.draw(Image.new("RGB", size), "a_b.png", notes, net)

    return AppTest.from_function(script, kwargs={"size": size, "fed": fed, "notes": notes}).run()


@pytest.mark.parametrize(
    ("size", "fed", "words"),
    [
        ((640, 480), (3, 224, 224), "The network sees the framed 420×420 of 640×480 pixels, at 224×224 pixels."),
        ((500, 300), (13, 120, 200), "The network sees all of it, at 200×120 pixels."),
        (
            (500, 600),
            (1, 120, 200),
            "The network sees the framed 500×300 of 500×600 pixels, at 200×120 pixels in grey.",
        ),
        ((32, 16_000), (3, 32, 32), "The network sees the framed 32×32 of 32×16000 pixels, at 32×32 pixels."),
    ],
)
def test_the_crop_in_words(size, fed, words):
    app = preview(size, fed)
    assert not app.exception
    assert [caption.value for caption in app.caption] == [words]


def test_notes_are_shown_and_their_markup_is_not_followed():
    app = preview(
        (9, 9), (3, 9, 9), ("colours of profile “![x](y)” converted to sRGB", "turned by 90° as its EXIF tag says")
    )
    text = app.caption[1].value
    assert r"\!\[x\](y)" in text and text.endswith("converted to sRGB; turned by 90° as its EXIF tag says.")


def test_a_grey_network_is_shown_grey():
    from pages.ui.sidebar import Selection

    class Grey(Selection):
        net = sp.Network(torch.nn.Conv2d(1, 2, 3), input_size=(1, 8, 8))

    crop = Grey("memory", "x", Image.effect_mandelbrot((20, 16), (-2, -1, 1, 1), 9).convert("RGB"), "x", "x").crop
    assert crop.mode == "RGB" and crop.size == (8, 8)
    assert all(red == green == blue for _, (red, green, blue) in crop.getcolors())
