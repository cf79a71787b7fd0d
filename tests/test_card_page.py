"""The identity card's page: what a file says about itself is shown, and never followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

import sp_core as sp
from pages.card_views import facts
from pages.ui.text import unmarked
from tests import driver

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setenv("SP_FOLDER", str(tmp_path))
    return tmp_path


def opened(source: str) -> AppTest:
    return driver.opened("card.py", net=source)


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
    assert unmarked("![a](b) layer_1") == r"\!\[a\](b) layer\_1"


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
    guessed = card | {"guesses": {"size": "Because."}, "input": card["input"] | {"mean": [0.5], "std": None}}
    assert "guessed" in dict(facts.rows(guessed))["Input"]
    assert dict(facts.rows(guessed))["Normalisation"].startswith("(x − 0.5) / 1")
    assert json.dumps(facts.layers(card))


def box(app, label):
    return next(element for element in app.main.number_input if element.label == label)


def rows_of(app) -> str:
    return html(app).replace("</td>", " ")


def test_how_it_is_fed_can_be_changed_and_is_kept_on_every_page_and_taken_back():
    app = opened("bundled:textures-resnet")
    box(app, "Height").set_value(48).run()
    assert not app.exception and not app.error
    assert "48 × 64 pixels (as you said)" in rows_of(app)
    assert app.session_state["by-hand"]["bundled:textures-resnet"] == {"input": "48x64"}
    box(app, "Width").set_value(48).run()
    assert app.session_state["by-hand"]["bundled:textures-resnet"] == {"input": "48"}
    next(e for e in app.main.selectbox if e.label == "Normalisation").set_value("imagenet").run()
    assert "0.485, 0.456, 0.406" in rows_of(app) and "imagenet" in str(app.session_state["by-hand"])
    app.switch_page("pages/receptive_fields.py").run()
    assert not app.exception and not app.error
    assert any("3×48×48" in caption.value for caption in app.sidebar.caption)
    app.switch_page("pages/card.py").run()
    next(e for e in app.main.button if e.label == "Reset to what was found").click().run()
    assert not app.exception and "64 × 64 pixels </tr>" in rows_of(app)
    assert app.session_state["by-hand"]["bundled:textures-resnet"] == {}


def test_what_is_said_by_hand_is_of_one_network():
    app = opened("bundled:textures-resnet")
    box(app, "Height").set_value(48).run()
    app.sidebar.selectbox[0].set_value("bundled:textures-vgg").run()
    assert "64 × 64 pixels </tr>" in rows_of(app)
    app.sidebar.selectbox[0].set_value("bundled:textures-resnet").run()
    assert "48 × 64 pixels" in rows_of(app)


def test_a_size_that_does_not_run_is_said_and_can_be_mended(shared):
    torch.save(sp.zoo.create("mnist-example").state_dict(), shared / "mnist.pth")
    app = opened("path:mnist.pth")
    assert not app.error and "28 × 28" in rows_of(app)
    box(app, "Height").set_value(40).run()
    assert not app.exception
    assert any("does not run on an input of 1×40×28" in error.value for error in app.main.error)
    box(app, "Height").set_value(28).run()
    assert not app.exception and not app.error and "28 × 28" in rows_of(app)


def test_a_link_that_does_not_fit_leaves_the_other_controls_working():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update({"net": "bundled:textures-vgg", "norm": "mnist"})
    app.switch_page("pages/card.py").run()
    assert not app.exception and app.error
    box(app, "Height").set_value(48).run()
    assert not app.exception
    next(e for e in app.main.selectbox if e.label == "Normalisation").set_value("half").run()
    assert not app.exception and not app.error and "48 × 64 pixels" in rows_of(app)


def test_own_numbers_are_checked_and_kept():
    app = opened("bundled:textures-vgg")
    text = {element.label: element for element in app.main.text_input}
    assert text["Mean"].value == "0.5"
    text["Std"].set_value("0.1, zero").run()
    assert not app.exception and any("The std is one number, or 3 with commas" in e.value for e in app.main.error)
    next(e for e in app.main.text_input if e.label == "Std").set_value("0.2").run()
    assert not app.error and "0.2, 0.2, 0.2 (as you said)" in rows_of(app)


def test_class_names_are_taken_from_a_file_that_fits(shared):
    torch.save(sp.zoo.create("textures-vgg", classes=3).state_dict(), shared / "three.pth")
    app = opened("path:three.pth")
    assert any("shown by number" in caption.value for caption in app.main.caption)
    uploader = next(e for e in app.main.file_uploader if e.label == "Class names")
    uploader.upload("names.txt", b"ash\nbeech\noak\n", "text/plain")
    app.run()
    assert not app.exception and not app.error
    assert any("names.txt" in caption.value for caption in app.main.caption)
    assert any("oak" in str(frame.value) for frame in app.main.dataframe)
    app = opened("path:three.pth")
    uploader = next(e for e in app.main.file_uploader if e.label == "Class names")
    uploader.upload("two.txt", b"ash\nbeech\n", "text/plain")
    app.run()
    assert any("2 class names were given, but three has 3 outputs" in error.value for error in app.main.error)


def test_a_link_says_how_it_is_fed_and_what_is_missing():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update(
        {"net": "bundled:textures-vgg", "input": "32x48", "norm": "half", "names": "0123456789abcdef"}
    )
    app.run()
    assert not app.exception and not app.error
    assert any("3×32×48" in caption.value for caption in app.sidebar.caption)
    assert any("0123456789abcdef that is not uploaded" in caption.value for caption in app.sidebar.caption)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"input": "big"}, "is written 224 or 32x48"),
        ({"input": "5000"}, "at most 1024 pixels"),
        ({"norm": "mnist"}, "is the normalisation of 1-channel images"),
        ({"resize": "no"}, "is written"),
    ],
)
def test_a_link_that_does_not_fit_is_a_sentence_and_the_card_can_mend_it(parameters, message):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update({"net": "bundled:textures-vgg", **parameters})
    app.switch_page("pages/card.py").run()
    assert not app.exception and any(message in error.value for error in app.error)
    next(e for e in app.main.button if e.label == "Reset to what was found").click().run()
    assert not app.exception and not app.error and "64 × 64" in rows_of(app)


def test_a_file_of_which_only_weights_are_known_has_a_card_without_holes(shared):
    odd = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3)
    )
    torch.save({name: tensor.half() for name, tensor in odd.state_dict().items()}, shared / "odd.pth")
    app = opened("path:odd.pth")
    assert not app.exception and not app.error and not app.info
    assert {metric.label: metric.value for metric in app.metric} == {
        "Parameters": f"{8 * 75 + 8 + 16 + 6 * 72 + 6:,}",
        "Size": "0.0 MB",
        "Layers with weights": "3",
        "Tensors": "9",
    }
    text = rows_of(app)
    assert "weights-only" in text and "nan" not in text.lower() and "Input" not in text and "classes" not in text
    assert "float32 in memory" in text and "tensors were float16" in text
    assert any("statistics of 1 layers" in expander.label for expander in app.main.expander)


def test_two_checkpoints_are_compared_and_a_stranger_is_a_sentence(shared):
    state = sp.zoo.create("textures-vgg", classes=4).state_dict()
    torch.save(state, shared / "before.pth")
    state["classifier.bias"] = state["classifier.bias"] + 1
    torch.save(state, shared / "after.pth")
    torch.save({"a.weight": torch.rand(4, 4)}, shared / "stranger.pth")
    app = opened("path:before.pth")
    picker = next(e for e in app.main.selectbox if e.label == "Compare with")
    picker.set_value("path:after.pth").run()
    said = " ".join(element.value for element in app.main.markdown)
    assert (
        not app.exception and not app.error and "classifier moved most" in said.replace("\\", "") and "frozen" in said
    )
    app.switch_page("pages/weights.py").run()
    app.switch_page("pages/card.py").run()
    assert next(e for e in app.main.selectbox if e.label == "Compare with").value == "path:after.pth"
    next(e for e in app.main.selectbox if e.label == "Compare with").set_value("path:stranger.pth").run()
    assert not app.exception and any("no tensor of the same name" in error.value for error in app.error)
    assert app.main.dataframe, "the rest of the card is there"


def named(app, name, options=""):
    next(e for e in app.main.selectbox if e.label == "Architecture").set_value(name)
    next(e for e in app.main.text_input if e.label == "Options").set_value(options)
    return app.run()


def said(app) -> str:
    return " ".join(element.value for element in app.main.markdown).replace("\\", "")


@pytest.fixture
def unlike(shared):
    """A ResNet-18 with a third of another network beside it: nothing that is known."""
    from torchvision.models import resnet18

    state = resnet18(num_classes=6).state_dict()
    extra = {f"{part}_again.{name}": value for name, value in state.items() for part in ("a",) if "layer" in name}
    torch.save(state | extra, shared / "unlike.pth")
    return "path:unlike.pth"


def test_an_architecture_can_be_named_by_hand_and_is_used_on_every_page(shared):
    torch.save(sp.zoo.create("textures-vgg", classes=6).state_dict(), shared / "mine.pth")
    app = opened("path:mine.pth")
    app.session_state["named"] = True
    app.run()
    named(app, "zoo:textures-alexnet")
    assert not app.exception and not app.error
    assert "are missing" in said(app) and "have no place" in said(app)
    assert any("Too little fits" in caption.value for caption in app.main.caption)
    assert {"missing", "unexpected"} <= set(app.main.dataframe[0].value["what"])
    named(app, "zoo:textures-vgg", "classes=6")
    next(e for e in app.main.button if e.label == "Use it (exact)").click().run()
    assert not app.exception and not app.error
    assert app.session_state["by-hand"]["path:mine.pth"] == {"as": "zoo:textures-vgg classes=6"}
    assert any("Every page uses it" in element.value for element in app.success)
    app.switch_page("pages/weights.py").run()
    assert not app.exception and not app.error
    named_here = app.session_state["by-hand"]["path:mine.pth"]
    assert named_here == {"as": "zoo:textures-vgg classes=6"}


def test_options_that_are_none_are_a_sentence(shared):
    torch.save(sp.zoo.create("textures-vgg", classes=6).state_dict(), shared / "mine.pth")
    app = opened("path:mine.pth")
    app.session_state["named"] = True
    app.run()
    for options, message in (
        ("classes", "written key=value"),
        ("wings=2", "is not an option"),
        ("classes=0", "1 or more"),
    ):
        named(app, "zoo:textures-vgg", options)
        assert not app.exception and any(message in error.value for error in app.error), options


def test_what_was_named_wrongly_in_a_link_is_said_and_mended(shared):
    torch.save(sp.zoo.create("textures-vgg", classes=6).state_dict(), shared / "mine.pth")
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update({"net": "path:mine.pth", "as": "torchvision:resnet18"})
    app.switch_page("pages/card.py").run()
    said = [error.value.replace("\\", "") for error in app.error]
    assert not app.exception and any("is not torchvision:resnet18" in text for text in said)
    next(e for e in app.main.button if e.label == "Forget what I named").click().run()
    assert not app.exception and not app.error and "zoo:textures-vgg" in html(app)


def test_what_is_close_to_an_unknown_file_is_offered(unlike):
    app = opened(unlike)
    assert "weights-only" in html(app)
    app.session_state["named"] = True
    app.run()
    assert not app.exception and not app.error
    assert any("Closest" in caption.value and "resnet18" in caption.value for caption in app.main.caption)
