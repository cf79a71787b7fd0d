"""Neighbours: exact search against brute force, leaving oneself out, going on after a stop, the verb and the page."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

import sp_core as sp
from sp_core.cli import main
from sp_core.nearest import PIXELS, Features, agreement, default_layers, nearest
from sp_core.nearest.approximate import Approximate
from sp_core.nearest.question import _majority

ROOT = Path(__file__).resolve().parents[1]


def network() -> sp.Network:
    torch.manual_seed(3)
    parts = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return sp.Network(nn.Sequential(*parts, nn.Linear(16, 5)), input_size=(3, 32, 32))


def built(folder: Path, count: int = 150, **more) -> Features:
    list(sp.build_features(network(), sp.datasets.open("textures", count=count), folder, **more))
    return Features(folder)


def test_without_faiss_approximate_search_says_how_to_get_it(tmp_path, monkeypatch):
    held = built(tmp_path, 30)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(sp.SpError, match="pip install faiss-cpu"):
        sp.neighbours(held, 3, "6", approximate=True)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_approximate_search_finds_nearly_all_and_with_their_true_distances(metric):
    pytest.importorskip("faiss")
    base = torch.randn(40, 12).repeat(60, 1) + 0.3 * torch.randn(2400, 12)
    rows = torch.arange(0, 2400, 50)
    want, true = nearest(base, base[rows], 9, metric, rows)
    every = Approximate(base, metric, probes=10_000)
    found = every.search(base[rows], 9, rows)
    assert every.cells > 8 and torch.equal(found[1], true) and torch.equal(found[0], want)
    few, near = Approximate(base, metric, probes=8).search(base[rows], 9, rows)
    shared = sum(len(set(a) & set(b)) for a, b in zip(near.tolist(), true.tolist(), strict=True))
    assert shared / true.numel() > 0.8 and not (near == rows[:, None]).any()
    assert (few >= want).all()


def brute(base, query, k, metric, out=None):
    """The definition, in float64, one row at a time."""
    every = []
    for row, vector in enumerate(base.double()):
        one = query.double()
        if metric == "l2":
            distance = (vector - one).pow(2).sum().sqrt()
        else:
            lengths = vector.norm() * one.norm()
            distance = 1 - (vector @ one / lengths if lengths > 0 else torch.tensor(0.0))
        if row != out:
            every.append((float(distance), row))
    return sorted(every)[:k]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e3])
def test_exact_search_equals_brute_force(metric, spread):
    base = 5 + spread * torch.randn(300, 40)
    queries = torch.cat([base[:4], 5 + spread * torch.randn(3, 40)])
    leave = torch.tensor([0, 1, 2, 3, -1, -1, -1])
    distances, rows = nearest(base, queries, 7, metric, leave)
    for i, query in enumerate(queries):
        want = brute(base, query, 7, metric, int(leave[i]))
        assert rows[i].tolist() == [row for _, row in want]
        assert torch.allclose(
            distances[i], torch.tensor([d for d, _ in want], dtype=torch.float64), rtol=1e-6, atol=1e-12
        )


def test_what_float32_cannot_tell_apart_is_searched_in_float64():
    # All vectors but one differ from the query by less than float32 keeps of their squared length.
    base = torch.full((400, 8), 1000.0)
    base[:, 0] += torch.arange(400, 0, -1) * 1e-3
    rough = base.square().sum(1) + base[-1].square().sum() - 2 * base @ base[-1]
    assert rough[380:].argsort().tolist() != list(range(19, -1, -1)), "float32 must fail for this test to mean anything"
    _, rows = nearest(base, base[-1:], 5, "l2", torch.tensor([399]))
    assert rows[0].tolist() == [row for _, row in brute(base, base[-1], 5, "l2", 399)]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_leaving_out_never_finds_itself_but_finds_its_twin(metric):
    base = torch.randn(80, 6)
    base[41] = base[17]
    _, rows = nearest(base, base, 79, metric, torch.arange(80))
    assert all(i not in found for i, found in enumerate(rows.tolist()))
    assert rows[17, 0] == 41 and rows[41, 0] == 17
    assert all(sorted([i, *found]) == list(range(80)) for i, found in enumerate(rows.tolist()))


def test_zero_vectors_are_far_from_everything_and_few_vectors_are_enough():
    distances, rows = nearest(torch.zeros(3, 4), torch.ones(1, 4), 9)
    assert distances.tolist() == [[1.0, 1.0, 1.0]] and rows.tolist() == [[0, 1, 2]]
    assert nearest(torch.ones(1, 4), torch.ones(1, 4), 9, "l2", torch.tensor([0]))[1].shape == (1, 0)
    with pytest.raises(sp.SpError, match="`metric` must be"):
        nearest(torch.ones(2, 4), torch.ones(1, 4), 1, "hamming")
    with pytest.raises(sp.SpError, match="`k` must be"):
        nearest(torch.ones(2, 4), torch.ones(1, 4), 0)


def test_features_are_what_the_layers_put_out(tmp_path):
    net, images = network(), sp.datasets.open("textures", count=70)
    held = built(tmp_path / "f", 70, layers=["1", "6"])
    pixels, labels = images.batch(0, 70, net)
    found = sp.activations(net, pixels, ["1", "6"])
    assert torch.allclose(held.vectors("1"), found["1"].mean((2, 3)), atol=1e-6)
    assert torch.allclose(held.vectors("6"), found["6"], atol=1e-6)
    assert torch.equal(held.vectors(PIXELS), (pixels.flatten(1) * 255).round())
    assert held.labels.tolist() == labels.tolist() and held.spaces == (PIXELS, "1", "6")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("stop", [1, 2])
def test_stopped_it_goes_on_and_ends_with_the_same_bytes(tmp_path, stop):
    images = sp.datasets.open("textures", count=150)
    built(tmp_path / "whole")
    steps = sp.build_features(network(), images, tmp_path / "parts")
    for _ in range(stop):
        record = next(steps)
    steps.close()
    assert record.done == 64 * stop and Features(tmp_path / "parts").done == record.done
    (tmp_path / "parts" / f"block-{record.done:08d}-{record.done + 22:08d}.safetensors").write_bytes(b"half a blo")
    last = list(sp.build_features(network(), images, tmp_path / "parts"))[-1]
    assert last.done == 150 and last.fresh == 150 - 64 * stop
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_grown_data_set_needs_only_its_new_images(tmp_path):
    built(tmp_path / "whole", 150)
    built(tmp_path / "parts", 100)
    last = list(sp.build_features(network(), sp.datasets.open("textures", count=150), tmp_path / "parts"))[-1]
    assert last.fresh == 150 - 64
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_folder_belongs_to_one_network_data_set_and_choice_of_layers(tmp_path):
    built(tmp_path, 30)
    images = sp.datasets.open("textures", count=30)
    with pytest.raises(sp.SpError, match="another network"):
        sp.build_features(network().fed(mean=0.5), images, tmp_path)
    with pytest.raises(sp.SpError, match="another layers"):
        sp.build_features(network(), images, tmp_path, ["1"])
    with pytest.raises(sp.SpError, match="another data set"):
        sp.build_features(network(), sp.datasets.open("textures:7", count=30), tmp_path)
    assert list(sp.build_features(network(), images, tmp_path, ["1"], resume=False))[-1].fresh == 30


def test_damage_is_said(tmp_path):
    with pytest.raises(sp.SpError, match="holds no features"):
        Features(tmp_path)
    built(tmp_path, 30)
    next(tmp_path.glob("block-*")).write_bytes(b"junk")
    with pytest.raises(sp.SpError, match="damaged"):
        Features(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(sp.SpError, match="format 99"):
        Features(tmp_path)


def test_a_damaged_picture_is_left_out(tmp_path):
    folder = tmp_path / "images" / "one"
    folder.mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i, 90, 200 - 30 * i)).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:50])
    list(sp.build_features(network(), sp.datasets.open(tmp_path / "images"), tmp_path / "f"))
    held = Features(tmp_path / "f")
    assert held.images.tolist() == [0, 1, 2, 4, 5] and held.done == 6
    with pytest.raises(sp.SpError, match="Image 3 is not among"):
        sp.neighbours(held, 3)
    assert sp.neighbours(held, 4, "6", k=9).images != () and 4 not in sp.neighbours(held, 4, "6").images


def test_a_picture_of_the_set_finds_itself_and_an_image_does_not(tmp_path):
    net, held = network(), built(tmp_path, 90)
    image = sp.datasets.select(sp.datasets.open("textures", count=90), [12], net)
    for space in held.spaces:
        mine = sp.neighbours(held, image, space, k=3, metric="l2", net=net)
        assert mine.images[0] == 12 and mine.distances[0] < 1e-4
        other = sp.neighbours(held, 12, space, k=2, metric="l2")
        assert 12 not in other.images and other.images == mine.images[1:]
    with pytest.raises(sp.SpError, match="needs `net`"):
        sp.neighbours(held, image, "6", net=net.fed(mean=0.2))
    with pytest.raises(sp.SpError, match="got 'conv9'"):
        sp.neighbours(held, 12, "conv9")


def test_agreement_is_the_share_that_neighbours_get_right(tmp_path):
    held = built(tmp_path, 120)
    for space in held.spaces:
        base, labels, right, same = held.vectors(space), held.labels.tolist(), 0, 0.0
        for i in range(120):
            votes = [labels[row] for _, row in brute(base, base[i], 5, "cosine", i)]
            best = max(votes, key=lambda label, votes=votes: (votes.count(label), -votes.index(label)))
            right += best == labels[i]
            same += votes.count(labels[i]) / 5
        found = agreement(held, space, 5)
        assert found.accuracy == right / 120 and found.share == pytest.approx(same / 120)
    assert 0.03 < found.chance < 0.09
    assert agreement(held, PIXELS, 5, most=30).images == 30


def test_equal_votes_go_to_the_nearest():
    assert _majority(torch.tensor([[2, 1, 1, 2], [3, 1, 1, 2], [0, 5, 4, 6]])).tolist() == [2, 1, 0]


def test_default_layers_are_spread_and_end_with_the_last():
    assert default_layers(network()) == ("0", "2", "6")
    net = sp.load("bundled:textures-resnet", device="cpu")
    names = default_layers(net)
    assert names[-1] == "fc" and len(names) <= 6


def test_the_verb_answers_and_writes_a_picture(tmp_path, capsys):
    arguments = ["neighbours", "bundled:textures-vgg", "--count", "80", "--folder", str(tmp_path / "f"), "--k", "4"]
    out = tmp_path / "near.png"
    assert main([*arguments, "--number", "5", "--agreement", "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["neighbours"][0]["space"] == "pixels"
    assert all(len(row["images"]) == 4 and 5 not in row["images"] for row in answer["neighbours"])
    assert 0 <= answer["agreement"][0]["accuracy"] <= 1
    with Image.open(out) as picture:
        assert picture.width > 400
    assert main([*arguments, "--number", "500"]) == 2
    assert "Image 500 is not among" in capsys.readouterr().err


@pytest.fixture
def _cache(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "SP_CACHE", str(tmp_path))
    monkeypatch.setattr("pages.neighbour_views.held.QUICK", 96)


def opened(**state) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=240)
    for key, value in {"net": "bundled:textures-vgg"}.items() | state.items():
        app.session_state[key] = value
    app.run()
    return app.switch_page("pages/neighbours.py").run()


@pytest.mark.usefixtures("_cache")
def test_the_page_builds_features_and_answers_two_viewers():
    first = opened()
    second = opened(of="an image of the data set", row=7)
    for app in (first, second):
        assert not app.exception and not app.error
        assert any("out of 96 images of textures" in caption.value for caption in app.caption)
        assert any("Left out in turn" in c.value or "No layer does better" in c.value for c in app.caption)
    assert not any("of the same class" in text.value for text in first.markdown)
    assert any("of the same class" in text.value for text in second.markdown)
    second.number_input("row").set_value(8).run()
    first.run()
    assert not second.exception and not first.exception
    assert any(caption.value.startswith("Neighbours of image 8, ") for caption in second.caption)
