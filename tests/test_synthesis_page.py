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
    return next(float(metric.value) for metric in app.metric if metric.label == "Reached")


def test_a_first_picture_is_there_without_a_click():
    app = opened()
    assert reached(app) > 0
    assert "Again" in [button.label for button in app.button]


def test_low_is_lower_than_high():
    app = opened(drive="class")
    high = reached(app)
    app.selectbox(key="sign").set_value("low").run()
    assert reached(app) < 0 < high


def forgetting():
    from types import SimpleNamespace

    import streamlit as st

    from pages.synthesis_views.choice import forget_of_another

    forget_of_another(SimpleNamespace(identity=st.session_state["net"]), "ascent", ("colours",))


def test_another_network_gets_its_own_usual_choices_and_a_link_keeps_its():
    app = AppTest.from_function(forgetting)
    app.session_state["net"], app.session_state["colours"] = "small", "textures"
    app.run().run()
    assert app.session_state["colours"] == "textures", "what came with the link, or was chosen for this network"
    app.session_state["net"] = "large"
    app.run()
    assert "colours" not in app.session_state


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
