"""The laboratory of weights: plans and their costs, pictures of free numbers, blocks of filters, and its views."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import sp_core as sp
import sp_core.parameterizations as P
from sp_core import weights as W
from sp_core.cli import main
from sp_core.errors import SpError
from sp_core.figures import laboratory
from sp_core.network import Network, predict
from tests.test_pages import (
    _folder,  # noqa: F401 - a fixture of every test here
    complaints,
    opened,
)


def _net() -> Network:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(1152, 10))
    return Network(nn.Sequential(*layers), name="three", input_size=(3, 30, 30))


def _places(net: Network) -> dict:
    sites = {layer: W.site(net, layer) for layer in W.rebuildable(net)}
    return {layer: (place, W.curves(place)) for layer, place in sites.items()}


# --- plans ----------------------------------------------------------------------------------------------------------


def test_the_table_says_what_compressing_then_does():
    net = _net()
    plan = {"0": ("separable", 4), "4": ("svd", 3)}
    table = laboratory.plan_table(_places(net), plan)
    assert [row["scheme"] for row in table] == ["separable", laboratory.WHOLE, "svd"]
    for cut in W.compress(net, plan).cuts:
        row = next(row for row in table if row["layer"] == cut.layer)
        assert (row["parameters"], row["MACs"]) == (cut.parameters, cut.macs)
        assert (row["of"], row["of MACs"]) == (cut.parameters_before, cut.macs_before)
        assert row["error"] == pytest.approx(cut.error, abs=1e-6)
    whole = table[1]
    assert whole["rank"] is None and whole["error"] == 0 and whole["MACs"] == whole["of MACs"]
    assert laboratory.plan_of(table) == plan
    assert len(laboratory.plan_bars(table).data) == 2


def test_a_plan_allotted_to_a_budget_keeps_to_it():
    places = _places(_net())
    table = laboratory.plan_table(places, W.allot(places, 0.4))
    assert 0 < sum(row["MACs"] for row in table) <= 0.4 * sum(row["of MACs"] for row in table)


def test_what_cannot_be_planned_is_said():
    places = _places(_net())
    with pytest.raises(SpError, match="rank of 0 under 'svd' is from 1 to 8; got 9"):
        laboratory.plan_table(places, {"0": ("svd", 9)})
    with pytest.raises(SpError, match="scheme for 4 must be one of svd; got 'tucker'"):
        laboratory.plan_table(places, {"4": ("tucker", 1)})
    with pytest.raises(SpError, match="7 is not a layer that can be factored here; choose one of 0, 2, 4"):
        laboratory.plan_table(places, {"7": ("svd", 1)})


def test_rows_without_a_scheme_or_a_rank_stay_whole():
    rows = [("a", None, 2), ("b", "svd", None), ("c", laboratory.WHOLE, 2), ("d", "svd", math.nan), ("e", "svd", 2.0)]
    table = [dict(zip(("layer", "scheme", "rank"), row, strict=True)) for row in rows]
    assert laboratory.plan_of(table) == {"e": ("svd", 2)}


@pytest.mark.parametrize("name", ["textures-alexnet", "textures-vgg", "textures-resnet"])
def test_a_compressed_bundled_network_loads_back_with_load(tmp_path, name):
    net = sp.load(f"bundled:{name}", device="cpu")
    first = next(layer for layer in W.rebuildable(net) if "conv" in layer or "features" in layer)
    small = W.compress(net, {first: ("svd", 5)})
    path = tmp_path / "compressed.safetensors"
    path.write_bytes(small.file())
    path.with_suffix(".json").write_text(json.dumps(small.card()))
    again = sp.load(str(path), device="cpu")
    images = torch.rand(1, *net.input_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predict(again, images), predict(small.network, images))
    assert (again.fingerprint, again.classes) == (small.network.fingerprint, net.classes)
    assert (again.mean, again.std, again.input_size) == (net.mean, net.std, net.input_size)


def test_the_verb_writes_a_file_that_loads(tmp_path, capsys):
    path = tmp_path / "small" / "net.safetensors"
    assert main(["compress", "bundled:textures-resnet", "--budget", "0.5", "--out", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["layers"] and said["macs"] <= 0.51 * said["macs_before"]
    again = sp.load(str(path), device="cpu")
    assert sp.complexity(again).macs == said["macs"]
    assert again.classes == sp.load("bundled:textures-resnet").classes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "2"], "share of the multiply-accumulates between 0 and 1; got 2.0"),
        (["--budget", "0.0001"], "Rank 1 everywhere costs"),
        (["--scheme", "cp"], "must be one of svd, separable, basis, tucker; got 'cp'"),
        (["--out", "net.pth"], "is a .safetensors file; got --out net.pth"),
    ],
)
def test_the_verb_says_what_is_wrong(tmp_path, capsys, options, words):
    out = [] if "--out" in options else ["--out", str(tmp_path / "net.safetensors")]
    assert main(["compress", "zoo:tutorial-cifar-net", *options, *out]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


# --- free numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", P.names())
def test_every_parametrisation_has_pictures(name):
    options = {"groups": 2} if "groups" in P.entry(name).options else {}
    layer = nn.Conv2d(8, 8, 3)
    was = layer.weight.detach().clone()
    module = P.apply(nn.Sequential(layer), name, ["0"], **options)
    own = P.parametrized(module)["0"]
    parts = list(module[0].parametrizations.weight.parameters())
    pictures = laboratory.written(was, module[0].weight.detach(), own, parts)
    assert pictures[0][0] == "W, as trained" and pictures[-1][0] == "Ŵ"
    assert len(pictures) == 2 + len(parts)
    assert pictures[0][1].size == pictures[-1][1].size


def test_tied_numbers_are_shown_once_and_nowhere_else():
    own = P.Tied((4, 4, 1, 1), channels="triangular")
    weight = torch.arange(1.0, 17).view(4, 4, 1, 1)
    (part,) = own.right_inverse(weight)
    shown = np.asarray(dict(laboratory.written(weight, own(part), own, [part]))["v: 10 free numbers"], dtype=int)
    white = shown.min(2) > 240
    assert white.tolist() == [[j < i for j in range(4)] for i in range(4)]


# --- groups ---------------------------------------------------------------------------------------------------------


def _blocks() -> W.Covariance:
    matrix = torch.block_diag(torch.ones(2, 3), torch.ones(2, 3)).double()
    spread = torch.ones(4, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    return W.Covariance("a", "b", matrix, spread, 10, 1, 1)


def test_blocks_of_filters_are_found_and_outlined():
    row = _blocks()
    assert laboratory.block_shares(row) == [{"groups": 2, "share in blocks": 1.0, "by chance": 0.5}]
    plain, outlined = laboratory.covariance(row), laboratory.covariance(row, 2)
    assert plain.size == outlined.size == (510, 340)
    assert outlined.getpixel((0, 0)) == (0, 0, 0) != plain.getpixel((0, 0))
    assert outlined.getpixel((300, 100)) == plain.getpixel((300, 100))
    figure = laboratory.block_share_curve(laboratory.block_shares(row), 2)
    assert [list(line.y) for line in figure.data] == [[1.0], [0.5], [1.0]]


# --- views ----------------------------------------------------------------------------------------------------------


def _button(app, label):
    return next(button for button in app.button if button.label.startswith(label))


def _metrics(app):
    return {metric.label: metric.value for metric in app.metric}


def test_compress_by_a_budget_measures_and_shows_the_code():
    app = opened("weights.py", net="bundled:textures-resnet", view="Compress", budget=50)
    assert not complaints(app)
    macs = next(metric for metric in app.metric if metric.label == "MACs")
    assert 40 < float(macs.delta.partition("%")[0]) <= 50.5
    (code,) = [block.value for block in app.code if "small.file()" in block.value]
    assert "again = sp.load('compressed.safetensors')" in code
    _button(app, "Measure milliseconds").click().run()
    assert not complaints(app) and float(_metrics(app)["Milliseconds"]) > 0
    app.slider(key="budget").set_value(95).run()
    assert not complaints(app)
    after = next(metric for metric in app.metric if metric.label == "MACs")
    assert float(after.value.split()[0]) > float(macs.value.split()[0])
    _button(app, "Try on").click().run()
    assert not complaints(app) and float(_metrics(app)["Same first choice as before"].rstrip("%")) > 60


@pytest.mark.parametrize("name", P.names())
def test_every_parametrisation_opens(name):
    family = P.entry(name).family
    app = opened("weights.py", net="bundled:textures-resnet", view="Parametrise", family=family, parametrisation=name)
    assert not complaints(app)
    assert 0 <= float(_metrics(app)["Relative error"]) <= 1.001


def test_projecting_says_what_it_costs():
    app = opened("weights.py", net="bundled:textures-resnet", view="Parametrise", parametrisation="triangular")
    _button(app, "Project").click().run()
    assert not complaints(app)
    assert 0 <= float(_metrics(app)["Accuracy"].rstrip("%")) <= 100


def test_a_network_without_square_layers_says_so():
    app = opened("weights.py", net="bundled:textures-alexnet", view="Parametrise", parametrisation="triangular")
    assert not complaints(app)
    said = any("No layer of this network can have it" in box.value for box in app.info)
    net = sp.load("bundled:textures-alexnet", device="cpu")
    square = [row for row in W.matrices(net) if row.tensor.shape[0] == row.tensor.shape[1]]
    assert said == (not square)


def test_covariance_counts_pixels_and_divides_into_groups():
    app = opened(
        "weights.py", net="bundled:textures-resnet", view="Covariance", **{"cov-count": 32, "cov-order": "reordered"}
    )
    assert not complaints(app)
    _button(app, "Compare on 32 images").click().run()
    assert not complaints(app)
    blocks = [
        float(_metrics(app)[name].rstrip("%"))
        for name in ("Squared correlation in the blocks", "In the blocks, reordered")
    ]
    assert blocks[0] <= blocks[1] <= 100
    assert 0 < float(_metrics(app)["Squared correlation in the blocks"].rstrip("%")) < 100
    app.selectbox(key="cov-groups").select_index(2).run()
    assert not complaints(app)
