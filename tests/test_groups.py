"""Filter groups in trained weights: planted ones are found, noise has none; connection maps; the two views."""

import itertools

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core import weights as W
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights import grouped
from tests.test_laboratory import _button, _metrics
from tests.test_pages import (
    _folder,  # noqa: F401 - a fixture of every test here
    complaints,
    opened,
)


def _noise(rows: int, columns: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw).square()


def _shuffled(energy: torch.Tensor, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(size, generator=draw) for size in energy.shape)
    return energy[rows][:, columns]


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_planted_groups_are_found_whole(groups):
    blocks = torch.block_diag(*[_noise(4, 6, seed) + 0.1 for seed in range(groups)])
    energy = _shuffled(blocks, 7)
    *_, last = W.grouping_steps(energy, groups, draws=4)
    assert last.learned == pytest.approx(1) == last.condensed and last.found
    assert sorted(last.rows.tolist()) == list(range(4 * groups))
    assert sorted(last.columns.tolist()) == list(range(6 * groups))
    assert grouped.share(energy, groups, last.rows, last.columns) == pytest.approx(last.learned)
    assert all(learned < 0.9 for learned, _ in last.without)


def test_strong_rows_and_columns_are_no_groups():
    """A search that is only held against chance would find groups in every one of these."""
    found = []
    for seed in range(10):
        energy = _noise(16, 1, seed) * _noise(1, 16, seed + 50) * _noise(16, 16, seed + 100)
        *_, last = W.grouping_steps(energy, 4)
        assert last.learned > last.chance + last.spread
        found.append(last.found)
    assert sum(found) <= 4  # one in nine by chance


def test_a_search_is_never_worse_than_the_order_it_is_given_and_random_orders_are_chance():
    energy = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)) + 0.2
    first = next(W.grouping_steps(energy, 2))
    assert first.imposed == pytest.approx(1.2 / 1.4) and first.learned >= first.imposed
    noise = _noise(64, 64, 3)
    first = next(W.grouping_steps(noise, 4))
    assert first.chance == 0.25 and abs(first.imposed - 0.25) < 3 * first.spread and not first.without


def test_the_best_of_all_orders_is_found_where_all_can_be_tried():
    for seed in range(5):
        energy = _noise(4, 4, seed)
        best = 0.0
        for rows in itertools.combinations(range(4), 2):
            for columns in itertools.combinations(range(4), 2):
                inside = torch.zeros(4, 4, dtype=torch.bool)
                inside[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
                others = [[i for i in range(4) if i not in own] for own in (rows, columns)]
                inside[torch.tensor(others[0])[:, None], torch.tensor(others[1])] = True
                best = max(best, float(energy[inside].sum() / energy.sum()))
        assert next(W.grouping_steps(energy, 2)).learned == pytest.approx(best)


def test_energies_are_those_that_the_parametrisation_keeps():
    net = Network(nn.Sequential(nn.Conv2d(8, 12, 3)), name="one", input_size=(8, 6, 6))
    energy = W.energies(net, "0")
    kept = 1 - W.constrained(net, "column", groups=4).layers[0].error ** 2
    assert next(W.grouping_steps(energy, 4)).imposed == pytest.approx(kept, abs=1e-6)


@pytest.mark.parametrize(
    ("energy", "groups", "message"),
    [
        (torch.ones(4, 6), 4, "4 outputs and 6 inputs are divided into 2 to 16 equal groups; got 4"),
        (torch.ones(4, 4), 1, "got 1. Choose a number that divides both"),
        (torch.ones(64, 64), 32, "got 32"),
        (torch.zeros(4, 4), 2, "all zero or not finite"),
    ],
)
def test_what_has_no_groups_says_so(energy, groups, message):
    with pytest.raises(SpError, match=message):
        next(W.grouping_steps(energy, groups))


# --- connections ----------------------------------------------------------------------------------------------------


def test_each_structure_is_inside_the_one_before():
    weight = torch.randn(4, 4, 3, 3)
    full, local, conv, blocks = W.maps(weight, (3, 4), groups=2)
    zeros = [row.matrix == 0 for row in (full, local, conv, blocks)]
    assert not zeros[0].any() and all((a <= b).all() for a, b in itertools.pairwise(zeros))
    assert [int((~own).sum()) for own in zeros] == [row.connections for row in (full, local, conv, blocks)]
    assert (conv.numbers, blocks.numbers, local.numbers) == (144, 72, local.connections)
    images = torch.randn(1, 4, 3, 4)
    made = (images.flatten(1) @ conv.matrix.mT).view(1, 4, 3, 4)
    assert torch.allclose(made, nn.functional.conv2d(images, weight, padding=1), atol=1e-5)
    part = torch.stack([weight[:2, :2], weight[2:, 2:]]).flatten(0, 1)
    made = (images.flatten(1) @ blocks.matrix.mT).view(1, 4, 3, 4)
    assert torch.allclose(made, nn.functional.conv2d(images, part, padding=1, groups=2), atol=1e-5)


def test_what_has_no_maps_says_so():
    with pytest.raises(SpError, match="kernel of 2×2 has no middle"):
        W.maps(torch.ones(2, 2, 2, 2), (3, 3))
    with pytest.raises(SpError, match="3 outputs and 2 inputs cannot both be divided into 2 groups"):
        W.maps(torch.ones(3, 2, 3, 3), (3, 3))


# --- folding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diracnet-10-1", "wrn-10-1"])
def test_every_step_of_folding_computes_the_layer(name):
    net = sp.load(f"zoo:{name}", device="cpu")
    for part in net.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.running_mean)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = next(row.layer for row in W.identity_shares(net) if "block" in row.layer and row.reason is None)
    made = W.folding(net, layer, images)
    assert made.trained == (name == "diracnet-10-1") and made.norm is not None
    assert len(made.steps) == len(made.differences) == 5
    assert max(made.differences) < 1e-4 * made.largest
    wrong = W.folding(net, layer, images + 1).largest - made.largest
    assert abs(wrong) > max(made.differences)  # the differences are small beside what another image makes
    alone = W.folding(net, layer)
    assert alone.norm is None and alone.differences == () and torch.equal(alone.a, made.a)


def test_a_folded_diracnet_loads_back(tmp_path):
    from safetensors.torch import save_file

    net = sp.load("zoo:diracnet-10-1", device="cpu")
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = W.folded(net, images)
    assert made.norms == 0 < made.norms_before and made.difference < 1e-4 * made.largest
    assert made.parameters < made.parameters_before
    save_file(
        {name: own.contiguous() for name, own in made.network.module.state_dict().items()}, tmp_path / "a.safetensors"
    )
    again = sp.load(tmp_path / "a.safetensors", device="cpu")
    assert (again.architecture, again.confidence) == ("zoo:diracnet-10-1-folded", "exact")
    assert torch.equal(again.module(images), made.network.module(images))


def test_what_cannot_be_folded_says_so():
    net = Network(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 2)), name="two", input_size=(4, 8, 8))
    with pytest.raises(SpError, match="0 is no convolution with one group"):
        W.folding(net, "0")
    with pytest.raises(SpError, match="an even kernel 2×2 has no middle"):
        W.folding(net, "1")


# --- symmetric projections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["channels", "left–right", "all eight"])
def test_a_projected_network_is_symmetric_and_the_nearest(kind):
    net = sp.load("zoo:wrn-10-1(symmetry=eigen)", device="cpu")
    before = {row.layer: row for row in W.symmetries(net) if row.kind == kind and row.reason is None}
    made = W.projected(net, kind)
    after = {row.layer: row for row in W.symmetries(made) if row.kind == kind and row.reason is None}
    assert after and all(row.energy == pytest.approx(1) for row in after.values())
    for layer, row in before.items():
        was, now = (W.find(own, layer).tensor.double() for own in (net, made))
        assert float((was - now).square().sum() / was.square().sum()) == pytest.approx(1 - row.energy, abs=1e-6)
    assert W.find(net, "conv1").tensor.equal(W.find(made, "conv1").tensor) == ("conv1" not in before)


def test_what_cannot_be_projected_says_so():
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 1)), name="one", input_size=(3, 8, 8))
    with pytest.raises(SpError, match="No weight of one can have the symmetry “channels”: 0, for one: 4×3 channels"):
        W.projected(net, "channels")
    with pytest.raises(SpError, match="0 cannot have the symmetry “half turn”: it has no k×k kernels"):
        W.projected(net, "half turn", ["0"])
    with pytest.raises(SpError, match="'7' is not one of the weights of one"):
        W.projected(net, "channels", ["7"])


# --- views ----------------------------------------------------------------------------------------------------------


def test_groups_are_looked_for_and_drawn():
    app = opened("weights.py", net="bundled:textures-resnet", view="Groups")
    assert not complaints(app)
    assert any("matrices without groups at most" in text.value for text in app.markdown)
    assert sum("connections" in caption.value for caption in app.caption) == 4
    app.selectbox(key="group-count").set_value(2).run()
    assert not complaints(app) and any("into 2 blocks" in text.value for text in app.markdown)


def test_the_identity_of_a_diracnet_is_folded_and_measured():
    app = opened("weights.py", net="zoo:diracnet-10-1", view="Dirac")
    assert not complaints(app) and _metrics(app)["Mean of a"] == "+1.000"
    assert len([metric for metric in app.metric if metric.label == "Largest difference"]) == 5
    assert any("a and b are parameters" in caption.value for caption in app.caption)
    _button(app, "Fold it").click().run()
    assert not complaints(app) and _metrics(app)["BatchNorms left"] == "0"
    assert float(_metrics(app)["Largest difference of an output"]) < 1e-4
    app = opened("weights.py", net="bundled:textures-resnet", view="Dirac")
    assert not complaints(app) and any("read off the weight" in caption.value for caption in app.caption)


def test_every_form_is_shown_and_projecting_is_measured():
    app = opened("weights.py", net="bundled:textures-resnet", view="Symmetry", kind="channels")
    assert not complaints(app)
    shown = "".join(text.value for text in app.markdown)
    assert all(f"**{name}:**" in shown for name in ("triangular", "average", "eigen", "ldl", "8-way-triangulizing"))
    _button(app, "Project on “channels”").click().run()
    assert not complaints(app) and 0 <= float(_metrics(app)["Accuracy"].rstrip("%")) <= 100
    app.selectbox(key="kind").set_value("transpose").run()
    assert not complaints(app) and any("**spatial-average:**" in text.value for text in app.markdown)
