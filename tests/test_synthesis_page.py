"""The page on pictures that a network makes: a first one without a click, one that is asked for, and a dream."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]
NET = "bundled:textures-alexnet"


def opened(**state) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in {"net": NET, "steps": 32, **state}.items():
        app.session_state[key] = value
    app.run()
    app.switch_page("pages/synthesis.py").run()
    assert not [element.value for element in [*app.exception, *app.error]]
    return app


def reached(app: AppTest) -> float:
    return next(float(metric.value) for metric in app.metric if metric.label == "Activation reached")


def test_a_first_picture_is_there_without_a_click():
    app = opened()
    assert reached(app) > 0
    assert "Again" in [button.label for button in app.button]


def test_low_is_lower_than_high():
    app = opened(drive="class")
    high = reached(app)
    app.selectbox(key="sign").set_value("low").run()
    assert reached(app) < 0 < high


def test_a_size_that_does_not_run_is_a_sentence():
    app = opened(drive="class")
    app.number_input(key="size").set_value(16).run()
    assert "does not run on 16×16 pixels" in app.error[0].value and not app.exception


@pytest.mark.slow
def test_a_dream_is_made_when_asked_for():
    app = opened(view="DeepDream", each=1, octaves=1)
    assert not app.error
    next(button for button in app.button if button.label == "Dream").click().run()
    assert "Again" in [button.label for button in app.button]
    assert not [element.value for element in [*app.exception, *app.error]]
