"""Tables that were trained here: read, checked, and said in words."""

import json

import pytest

from sp_core import trained
from sp_core.errors import SpError
from sp_core.figures import architectures as figures


def table(**change):
    rows = [
        {
            "label": label, "architecture": "wrn-16-1", "options": {}, "parameters": 175066, "macs": 24_000_000,
            "seeds": [{"seed": s, "accuracy": a, "loss": 1.0, "seconds": 10.0} for s, a in enumerate(accuracies)],
            "published": published,
        }
        for label, accuracies, published in (
            ("one", [0.5, 0.7], {"error": 8.49, "source": "a slide"}),
            ("two", [0.8], {"accuracy": 0.9, "source": "a slide"}),
            ("three", [0.25], None),
            ("waits", [], None),
        )
    ]  # fmt: skip
    budget = {"images": 100_000, "batch": 64, "devices": ["cpu"], "precisions": ["bfloat16"]}
    whole = {"name": "t", "title": "T", "source": "s", "data": "CIFAR-10 (Krizhevsky 2009), crops", "budget": budget}
    return whole | {"rows": rows} | change


def written(folder, content, name="t.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_table_is_read_with_mean_and_spread(tmp_path):
    (found,) = trained.tables(written(tmp_path, table()).parent)
    assert [row.label for row in found.rows] == ["one", "two", "three"], "a row without a run waits"
    assert found.rows[0].error == pytest.approx(40) and found.rows[0].spread == pytest.approx(200**0.5)
    assert found.rows[1].spread is None
    assert [row.published_error for row in found.rows] == [8.49, pytest.approx(10), None]
    assert found.dataset == "CIFAR-10"
    assert found.in_words().startswith(
        "2 passes over 50,000 images on a CPU in bfloat16 in batches of 64, 1 to 2 seeds"
    )
    assert "longer training" in found.in_words()


def test_without_the_folder_there_are_no_tables(tmp_path):
    assert trained.tables(tmp_path / "none") == () == trained.tables(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a table"),
        ("[]", "is not a table"),
        (json.dumps({"rows": []}), "is not a table"),
        (json.dumps(table(rows=[])), "has no row that was trained"),
        (json.dumps(table(rows=[table()["rows"][3]])), "has no row that was trained"),
        (json.dumps(table(rows=[table()["rows"][1] | {"seeds": [{"seed": 0, "accuracy": 80}]}])), "from 0 to 1"),
    ],
)
def test_a_file_that_is_no_table_is_said(tmp_path, content, words):
    with pytest.raises(SpError, match=words):
        trained.read(written(tmp_path, content))


def test_the_figure_has_both_columns(tmp_path):
    found = trained.read(written(tmp_path, table()))
    figure = figures.trained(found)
    mean, published = figure.data[1], figure.data[2]
    assert list(mean.x) == [pytest.approx(40), pytest.approx(20), pytest.approx(75)]
    assert list(published.x) == [8.49, pytest.approx(10)] and list(published.y) == ["one", "two"]
    assert published.xaxis == "x2", "a short training and the published one have each their own axis"
    bare = figures.trained(trained.read(written(tmp_path, table(rows=[table()["rows"][2]]))))
    assert len(bare.layout.annotations) == 1


def test_stars_stand_in_the_chart(tmp_path):
    found = trained.read(written(tmp_path, table()))
    figure = figures.cost_chart([], "top-1", [found])
    assert [list(trace.x) for trace in figure.data] == [[24_000_000] * 3, [175066] * 3]
    assert "on a CPU" in figure.data[0].hovertext[0] and "± 14.14 over 2 seeds" in figure.data[0].hovertext[0]
