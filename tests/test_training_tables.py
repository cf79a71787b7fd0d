"""The lectures' comparisons on CIFAR-10: what training is fed, what is measured, what is kept."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from sp_core import cli, zoo
from sp_core.errors import SpError
from sp_core.parameterizations import asymmetry
from sp_core.training import TABLES, Recipe, Row, Table, compare, table, train
from sp_core.training.comparing import kept, size
from sp_core.training.feeds import CifarFeed
from sp_core.training.measuring import measured

KEPT = Path(__file__).parent.parent / "assets" / "tables"
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A folder like CIFAR-10's binary version: 5 × 20 training images and 30 test images, whose hue is their class."""
    folder = tmp_path_factory.mktemp("cifar")
    generator = np.random.default_rng(0)
    for name, count in [*((f"data_batch_{i}", 20) for i in range(1, 6)), ("test_batch", 30)]:
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = generator.integers(0, 60, (count, 3, 1024), dtype=np.uint8)
        pixels[np.arange(count), labels % 3] += labels[:, None] * 19
        np.concatenate([labels[:, None], pixels.reshape(count, -1)], 1).tofile(folder / f"{name}.bin")
    return str(folder)


def recipe(**more):
    made = Recipe("r", "wrn-10-1", steps=4, batch=20, warmup=1, held_out=30, measure_every=2, dataset="cifar10")
    return replace(made, first_weight_decay=5e-4, **more)


SMALL = Table(
    "small",
    "A table",
    "nowhere",
    (
        Row("first exit", "msdnet-cifar10-small", exit=0, keep="bundled-exits"),
        Row("last exit", "msdnet-cifar10-small", exit=3, keep="bundled-exits"),
        Row("plain", "diracnet-10-1", {"dirac": False}, error=50.0),
    ),
    images=20,
    batch=10,
)


def test_each_pass_shows_every_image_once_under_its_label(cifar):
    feed = CifarFeed(recipe(), cifar, CPU)
    images, labels = feed.train.pixels()
    wide = F.pad(images.double(), (4,) * 4, "reflect").byte()
    seen = []
    for step in range(5):  # one pass of 100 images
        batch, names = feed(step)
        assert batch.dtype == torch.uint8 and batch.shape == (20, 3, 32, 32)
        for image, name in zip(batch, names, strict=True):
            own = (labels == name).nonzero().flatten()  # the images of this class
            whole = wide[own].unfold(2, 32, 1).unfold(3, 32, 1)  # [n, 3, 9, 9, 32, 32]: every crop there is
            for mirrored in (image, image.flip(2)):
                match = (whole == mirrored[None, :, None, None]).flatten(4).all(4).all(1).flatten(1).any(1)
                if match.any():
                    seen.append(int(own[match][0]))
                    break
            else:
                raise AssertionError("a batch held something that is no crop of a training image of its class")
    assert sorted(seen) == list(range(100))
    again = CifarFeed(recipe(), cifar, CPU)
    assert torch.equal(again(3)[0], feed(3)[0]) and not torch.equal(feed(3)[0], feed(8)[0])


def test_crops_move_and_flip(cifar):
    """The same image at many steps: all nine offsets each way, and both hands."""
    feed = CifarFeed(recipe(batch=100), cifar, CPU)
    image = feed.train.pixels()[0][0]
    wide = F.pad(image[None].double(), (4,) * 4, "reflect").byte()[0]
    found = set()
    for step in range(40):
        feed(step)
        row = int((feed._order(step) == 0).nonzero()[0])
        crop = feed(step)[0][row]
        for down in range(9):
            for right in range(9):
                for flip in (False, True):
                    whole = wide[:, down : down + 32, right : right + 32]
                    if torch.equal(crop, whole.flip(2) if flip else whole):
                        found.add((down, right, flip))
    assert len(found) >= 25
    for axis, count in ((0, 9), (1, 9), (2, 2)):
        assert len({place[axis] for place in found}) == count


def test_measuring_counts_every_exit(cifar):
    torch.manual_seed(0)
    net = zoo.create("msdnet-cifar10-small").eval()
    feed = CifarFeed(recipe(), cifar, CPU)
    images, labels = next(feed.held_out(30))
    found = measured(net, feed.held_out(30), torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 10)
    with torch.no_grad():
        exits = net.every_exit(images)
        assert torch.equal(exits[-1], net(images))
    assert found.accuracy == pytest.approx([float((e.argmax(1) == labels).float().mean()) for e in exits])
    assert found.loss == pytest.approx([float(F.cross_entropy(e, labels)) for e in exits], rel=1e-5)
    assert found.count == 30 and found.each == pytest.approx(
        [float((exits[-1].argmax(1) == c)[labels == c].float().mean()) for c in range(10)]
    )
    alone = zoo.create("msdnet-cifar10-small", exits=2).eval()
    alone.load_state_dict({k: v for k, v in net.state_dict().items() if k in alone.state_dict()})
    with torch.no_grad():
        assert torch.equal(alone(images), exits[1])


def test_the_penalty_makes_soft_l1_symmetric(cifar, tmp_path):
    left = {}
    for penalty in (0.0, 0.05):
        made = recipe(steps=20, measure_every=20, penalty=penalty, architecture="wrn-10-1-bottleneck")
        made = replace(made, options={"symmetry": "soft-l1"}, learning_rate=0.05)
        list(train(made, tmp_path / str(penalty), data=cifar))
        net = zoo.create(made.architecture, **made.options)
        net.load_state_dict(load_file(tmp_path / str(penalty) / "r.safetensors"))
        left[penalty] = asymmetry(net).item()
    assert left[0.05] < 0.7 * left[0.0]


def test_a_table_is_trained_kept_and_gone_on_with(cifar, tmp_path):
    runs = compare(SMALL, tmp_path, data=cifar, seeds=2, weights=tmp_path / "runs")
    first = next(runs)
    assert (first.done, first.runs, first.seed) == (1, 4, 0)  # two exits are one run; two networks, two seeds
    runs.close()  # stopped: the file holds what is done
    begun = json.loads((tmp_path / "small.json").read_text())
    assert [len(row["seeds"]) for row in begun["rows"]] == [1, 1, 0]
    rest = list(compare(SMALL, tmp_path, data=cifar, seeds=2, weights=tmp_path / "runs"))
    assert [r.done for r in rest] == [2, 3, 4]
    record = json.loads((tmp_path / "small.json").read_text())
    assert [[s["seed"] for s in row["seeds"]] for row in record["rows"]] == [[0, 1]] * 3
    assert record["rows"][0]["seeds"][0] == begun["rows"][0]["seeds"][0]
    assert record["rows"][0]["macs"] < record["rows"][1]["macs"]
    assert record["rows"][2]["published"] == {"error": 50.0, "source": "nowhere"}
    assert record["rows"][0]["published"] is None
    assert record["budget"]["images"] == 20 and record["budget"]["devices"] == ["cpu"]
    card = json.loads((tmp_path / "runs" / f"{SMALL.recipe(SMALL.rows[0], 0).name}.json").read_text())
    assert card["exits"][0]["accuracy"] == record["rows"][0]["seeds"][0]["accuracy"]
    with pytest.raises(SpError, match=r"was trained with 20 images in batches of 10, not 40 in 10; give --images 20"):
        next(compare(replace(SMALL, images=40), tmp_path, data=cifar))
    written = (tmp_path / "runs" / f"{card['name']}.safetensors").stat().st_mtime_ns
    again = list(compare(replace(SMALL, name="other"), tmp_path, data=cifar, seeds=2, weights=tmp_path / "runs"))
    assert again[0].card == card  # what another table trained is not trained again
    assert (tmp_path / "runs" / f"{card['name']}.safetensors").stat().st_mtime_ns == written
    assert kept(SMALL, tmp_path / "runs", tmp_path) == ["bundled-exits"]
    bundled = json.loads((tmp_path / "bundled-exits.json").read_text())
    assert bundled["name"] == "bundled-exits" and bundled["exits"] == card["exits"]
    assert bundled["sha256"] == hashlib.sha256((tmp_path / "bundled-exits.safetensors").read_bytes()).hexdigest()
    trained = load_file(tmp_path / "runs" / f"{SMALL.recipe(SMALL.rows[0], 0).name}.safetensors")
    copied = load_file(tmp_path / "bundled-exits.safetensors")
    assert all(torch.equal(trained[name], copied[name]) for name in trained | copied)
    with pytest.raises(SpError, match=r"is not there; train the table 'small' first"):
        kept(SMALL, tmp_path / "elsewhere", tmp_path)


def test_symmetric_weights_are_bundled_as_plain_ones(cifar, tmp_path):
    made = Table(
        "s", "S", "nowhere", (Row("a", "wrn-10-1-bottleneck", {"symmetry": "average"}, keep="a"),), 10, batch=10
    )
    list(compare(made, tmp_path, data=cifar, weights=tmp_path))
    assert kept(made, tmp_path, tmp_path) == ["a"]
    plain = zoo.create("wrn-10-1-bottleneck")
    plain.load_state_dict(load_file(tmp_path / "a.safetensors"))
    weight = plain.group1[0].conv2.weight
    assert torch.equal(weight, weight.transpose(0, 1)) and not torch.equal(
        plain.fc.weight, torch.zeros_like(plain.fc.weight)
    )
    free = zoo.create("wrn-10-1-bottleneck", symmetry="average")
    free.load_state_dict(load_file(tmp_path / f"{made.recipe(made.rows[0], 0).name}.safetensors"))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), free.eval()(x))


def test_the_command_trains_a_table(cifar, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TABLES, "small", replace(SMALL, rows=SMALL.rows[2:]))
    words = ["train-table", "small", "--data", cifar, "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert cli.main([*words, "--weights", str(tmp_path / "runs")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == str(tmp_path / "small.json") and "1/1  plain, seed 0" in err
    assert cli.main(["train-table", "symetric", "--data", cifar]) == 2
    assert "did you mean symmetric?" in capsys.readouterr().err
    assert cli.main([*words[:3], str(tmp_path / "nothing"), "--out", str(tmp_path / "other")]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "label", "parameters"),
    [  # reference: deep-symmetry's table, wide-residual-networks, phd-thesis' lrdata and rootdata
        ("symmetric", "baseline", 219_482),
        ("symmetric", "soft L1", 172_106),
        ("symmetric", "spatial average", 187_226),
        ("symmetric", "spatial and channel average", 155_642),
        ("width", "40 layers, width 1", 563_930),
        ("groups", "original", 966_986),
        ("groups", "3 × 3, low rank", 438_410),
    ],
)
def test_a_row_has_the_published_number_of_parameters(name, label, parameters):
    row = next(row for row in table(name).rows if row.label == label)
    assert size(row)["parameters"] == parameters


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_row_can_be_made_and_trained(name):
    for row in TABLES[name].rows:
        net = zoo.create(row.architecture, **row.options)
        loss = F.cross_entropy(net(torch.rand(4, 3, 32, 32)), torch.arange(4))
        loss.backward()
        assert all(p.grad is not None for n, p in net.named_parameters() if "classifier" not in n)
        assert not any(isinstance(m, nn.LazyLinear) for m in net.modules())
    assert len({TABLES[name].recipe(row, 0).name for row in TABLES[name].rows if row.exit is None}) in (
        0,
        len(TABLES[name].rows),
    )


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_a_kept_table_says_what_was_measured(path):
    record = json.loads(path.read_text())
    made = TABLES[record["name"]]
    assert [row["label"] for row in record["rows"]] == [row.label for row in made.rows]
    assert (record["budget"]["images"], record["budget"]["batch"]) == (made.images, made.batch)
    for row, wanted in zip(record["rows"], made.rows, strict=True):
        assert {key: row[key] for key in ("parameters", "macs")} == size(wanted)
        assert row["seeds"], f"{wanted.label} was not trained"
        for seed in row["seeds"]:
            assert 0.1 <= seed["accuracy"] < 1 and seed["loss"] > 0 and seed["seconds"] > 0
