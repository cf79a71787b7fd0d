"""The page of architectures, driven by Streamlit's test driver, and its verb."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.architecture_views import click, one
from sp_core import trained
from sp_core.cli import main
from tests.test_trained import table

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    """No tables of our own, whatever this copy of the project has trained."""
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "tables")
    return tmp_path / "tables"


def opened(query=None, **state):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    for key, value in (query or {}).items():
        app.query_params[key] = value
    app.switch_page("pages/architectures.py").run()
    assert not [element.value for element in [*app.exception, *app.error]]
    return app


def words(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info, *app.warning, *app.subheader])


@pytest.mark.parametrize("view", ["Error and cost", "ILSVRC by year", "Trained here", "Wrong on slides"])
def test_every_view_opens(view):
    app = opened(view=view)
    assert app.segmented_control[0].value == view


def test_the_chart_follows_its_controls():
    app = opened(data="CIFAR-100")
    assert [control.label for control in app.segmented_control] == ["View", "Images", "Lecture"]
    (frame,) = app.dataframe
    assert set(frame.value["lecture"]) == {"Huang", "Zagoruyko"} and frame.value["source"].all()
    app.segmented_control[2].set_value("Ioannou").run()
    assert not app.exception and "shows no top-1 error on CIFAR-100" in words(app)


def test_an_architecture_is_opened_by_link_with_its_mistakes_on_slides():
    app = opened({"architecture": "lenet5"})
    assert app.segmented_control[0].value == one.VIEW
    assert app.selectbox(key="architecture").value == "lenet5"
    assert "416 parameters" in words(app) and "**2,416**" in words(app)
    assert app.metric[0].value == "61,706"
    layers = app.dataframe[0].value
    assert list(layers["parameters"]) == [156, 0, 2416, 0, 48120, 10164, 850]
    assert list(layers["receptive field"])[:2] == ["5 × 5", "6 × 6"]


def test_a_module_is_looked_into_and_options_are_made():
    app = opened(
        {"architecture": "wrn-16-1-bottleneck", "options": "symmetry=triangular", "inside": "group1.0"}, view=one.VIEW
    )
    assert app.metric[0].value == "172,106"
    assert "symmetry=triangular" in words(app)
    names = list(app.dataframe[1].value["as"])
    assert any("LDL" in name for name in names), "what is published of it, whatever its options"


def test_a_name_that_is_not_listed_is_made_and_a_wrong_one_is_said():
    app = opened({"architecture": "resnet152-root16"})
    assert "ResNet-152 with 16, 8, 4, 2 filter groups" in words(app)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.session_state["view"] = one.VIEW
    app.session_state["architecture"] = "resnet50-root9"
    app.run()
    app.switch_page("pages/architectures.py").run()
    assert not app.exception and "did you mean" in app.error[0].value


def test_a_wrong_option_is_said():
    app = opened({"architecture": "lenet5"})
    app.text_input(key="options").set_value("colour=3").run()
    assert not app.exception and "not an option of lenet5" in app.error[0].value


def test_a_button_opens_what_a_slide_has_wrong():
    app = opened(view="Wrong on slides")
    app.button(key="wrong-0").click().run()
    assert not app.exception
    assert app.segmented_control[0].value == one.VIEW and app.selectbox(key="architecture").value == "alexnet-groups2"
    assert "724,417,384" in words(app)
    assert "alexnet-groups2" in app.query_params["architecture"], "what code chose is in the address"
    app.segmented_control[0].set_value("ILSVRC by year").run()
    assert "architecture" not in app.query_params
    app.segmented_control[0].set_value(one.VIEW).run()
    assert app.selectbox(key="architecture").value == "alexnet-groups2", "and is kept while another view is looked at"


def test_it_is_chosen_for_the_other_pages():
    app = opened({"architecture": "lenet5"})
    (button,) = [button for button in app.button if "zoo:lenet5" in button.label]
    button.click().run()
    assert not app.exception and app.session_state["net"] == "zoo:lenet5"
    assert any(button.label == "Chosen in the sidebar" for button in app.button)


def test_tables_that_were_trained_stand_beside_the_published(tables):
    assert "has been trained" in words(opened(view="Trained here"))
    tables.mkdir()
    (tables / "t.json").write_text(json.dumps(table()))
    (tables / "broken.json").write_text("{")
    app = opened(view="Trained here")
    assert "2 passes over 50,000 images on a CPU" in words(app) and "broken.json is not a table" in words(app)
    assert list(app.dataframe[0].value["published, %"])[:2] == [8.49, pytest.approx(10)]
    chart = opened(data="CIFAR-10")
    assert not chart.exception


def test_a_click_opens_what_was_clicked(monkeypatch):
    seen = []
    monkeypatch.setattr(click.st, "plotly_chart", lambda plot, **more: seen.append(more["on_select"]))
    state = {"k": type("Event", (), {"selection": type("Selection", (), {"points": []})})}
    monkeypatch.setattr(click.st, "session_state", state)
    from sp_core.figures.architectures import development
    from sp_core.published import ilsvrc

    taken = []
    click.figure(development(ilsvrc()), "alt", "k", taken.append)
    seen[0]()
    assert not taken, "a click beside every point"
    state["k"].selection.points = [{"customdata": ["lenet5", "classes=3"]}]
    seen[0]()
    assert taken == [["lenet5", "classes=3"]]


def test_the_verb_lists_and_describes(capsys):
    assert main(["architectures", "--find", "NiN", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["architectures"]
    assert {"name", "about", "parameters", "macs", "input"} == set(rows[0])
    assert "nin-cifar-root4" in {row["name"] for row in rows} and "lenet5" not in {row["name"] for row in rows}
    assert main(["architectures", "lenet5", "classes=3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 61111 and found["corrections"] and found["layers"][2]["parameters"] == 2416
    assert main(["architectures", "diracnet18"]) == 0
    out = capsys.readouterr().out
    assert "right: 11,523,368" in out and "published: top1 30.37 %" in out
    assert main(["architectures", "--find", "no such thing"]) == 2
    assert "leave --find out" in capsys.readouterr().err
    assert main(["architectures", "lenet6"]) == 2
