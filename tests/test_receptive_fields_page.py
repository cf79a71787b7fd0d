"""The page on receptive fields: a control moves, and the number beside the picture moves with it."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]


def opened(**state):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in {"net": "zoo:textures-alexnet", **state}.items():
        app.session_state[key] = value
    app.run()
    return app.switch_page("pages/receptive_fields.py").run()


def seen(app):
    assert not [element.value for element in [*app.exception, *app.error]]
    return next(metric.value for metric in app.metric if metric.label == "It can see")


def test_the_layer_decides_how_much_is_seen():
    app = opened(layer="features.0")
    assert seen(app) == "11 × 11 pixels"
    app.select_slider(key="layer").set_value("features.3").run()
    assert seen(app) == "31 × 31 pixels"


def test_the_unit_can_be_measured():
    app = opened(layer="features.3", images=4)
    app.toggle(key="measure").set_value(True).run()
    assert seen(app) == "31 × 31 pixels"
    captions = [caption.value for caption in app.caption if "95 % of the energy" in caption.value]
    assert len(captions) == 2


def test_a_layer_of_another_network_is_forgotten():
    assert "pixels" in seen(opened(layer="layer4.1.conv2"))


def test_gates_held_and_counted_stand_side_by_side():
    app = opened(net="zoo:cifar-senet18", layer="layer2.0.conv2")
    assert not [element.value for element in [*app.exception, *app.error]]
    assert {metric.label: metric.value for metric in app.metric} == {
        "Gates held constant": "17 × 17 pixels",
        "Gates counted": "whole image",
    }
