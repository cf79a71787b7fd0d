"""The backprop page, run by Streamlit's test driver."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]


def opened(**state):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in {"net": "bundled:textures-alexnet", **state}.items():
        app.session_state[key] = value
    app.run()
    app.switch_page("pages/backprop.py").run()
    assert [element.value for element in [*app.exception, *app.error]] == []
    return app


def words(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def test_the_default_view_is_the_predicted_class():
    app = opened()
    text = words(app)
    assert "Guided backprop" in text
    assert "5 rectifiers" in text
    assert "mostly edge recovery" in app.warning[0].value


def test_a_unit_of_the_first_layer_has_the_gradient_only_and_says_why():
    app = opened(of="unit", layer="features.0", channel=3)
    text = words(app)
    assert "Guided backprop is undefined here" in text
    assert "Grad-CAM is undefined here" in text
    assert "**0 rectifiers**" in text
    assert not [element for element in app.markdown if element.value == "**Deconvnet**"]


def test_another_class_changes_the_target():
    app = opened(of="class")
    app.selectbox(key="class").select_index(4).run()
    assert app.selectbox(key="class").value.partition(" · ")[2] in words(app)


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "occlusion"])
def test_slow_methods_wait_for_their_button_and_then_show_the_map(method):
    app = opened(method=method)
    assert "Press Run" in words(app)
    app.button(key="live-attribution-go").click().run()
    text = words(app)
    assert "Press Run" not in text
    assert "Source:" in text
    if method == "integrated_gradients":
        assert "completeness error" in text


def test_a_map_is_tested():
    app = opened(method="grad_cam", test=True)
    text = words(app)
    assert "Area under insertion" in text
    assert "Petsiuk et al. 2018" in text
