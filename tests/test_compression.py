"""A compressed network says the same as before at full rank, costs what is promised, and comes back from its file."""

import itertools
import json
import math

import pytest
import torch
from torch import nn

import sp_core as sp
import sp_core.parameterizations as P
from sp_core import weights as W
from sp_core import zoo
from sp_core.errors import SpError
from sp_core.network import Network, predict
from sp_core.parameterizations.recognised import unfactored

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _network(name="tutorial-cifar-net"):
    facts = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "classes": tuple("abcdefghij")}
    return Network(zoo.create(name), name=name, input_size=(3, 32, 32), architecture=f"zoo:{name}", **facts)


def _small():
    layers = (nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Flatten(), nn.LazyLinear(10))
    module = nn.Sequential(*layers)
    module(IMAGES)
    return Network(module, name="small", input_size=(3, 32, 32))


def test_full_rank_says_the_same():
    net = _network()
    small = W.compress(net, {"conv1": ("separable", 15), "conv2": ("svd", 16), "fc2": ("svd", 84)})
    assert torch.allclose(predict(small.network, IMAGES), predict(net, IMAGES), atol=1e-5)
    assert all(cut.error < 1e-6 for cut in small.cuts)
    assert small.parameters > small.parameters_before  # at full rank it only costs more


@pytest.mark.parametrize("scheme", ["svd", "separable", "basis", "tucker", "cp"])
def test_the_network_is_the_one_with_the_rebuilt_weights(scheme):
    net = _small()
    before = net.fingerprint
    small = W.compress(net, {"2": (scheme, 3)})
    expected = net.clone()
    row = W.factor(W.site(net, "2"), scheme, 3)
    expected[2].weight = nn.Parameter(row.weight.float(), requires_grad=False)
    assert torch.allclose(predict(small.network, IMAGES), expected(IMAGES), atol=1e-4)
    (cut,) = small.cuts
    assert cut.error == row.error and (cut.parameters, cut.macs) == (row.parameters, row.macs)
    assert small.macs_before - small.macs == cut.macs_before - cut.macs
    copies = sum(part.weight.numel() for part in row.layers) - row.parameters  # of the shared kernels of a basis
    assert small.parameters_before - small.parameters == cut.parameters_before - cut.parameters - copies
    assert net.fingerprint == before and small.network.fingerprint != before
    assert small.network.layers[2].name == "2.0"


def test_several_layers_at_once_and_the_code_that_does_it():
    net = _network()
    plan = {"conv1": ("svd", 3), "fc1": ("svd", 20)}
    small = W.compress(net, plan)
    assert small.plan == plan and "2 layers factored" in small.network.name
    assert small.parameters == small.parameters_before - sum(c.parameters_before - c.parameters for c in small.cuts)
    code = small.code("zoo:tutorial-cifar-net")
    assert '"fc1": ("svd", 20)' in code
    compile(code, "code", "exec")


@pytest.mark.parametrize(
    "plan",
    [
        {"conv1": ("svd", 3), "fc1": ("svd", 20)},
        {"conv1": ("separable", 4), "conv2": ("tucker", 8), "fc3": ("svd", 2)},
        {"conv2": ("basis", 5)},
        {"conv2": ("cp", 6)},
    ],
    ids=lambda plan: "-".join(scheme for scheme, _ in plan.values()),
)
def test_the_file_loads_back(tmp_path, plan):
    net = _network()
    small = W.compress(net, plan)
    path = tmp_path / "compressed.safetensors"
    path.write_bytes(small.file())
    path.with_suffix(".json").write_text(json.dumps(small.card()))
    dense, found = unfactored(dict(small.network.module.state_dict().items()))
    assert found == plan and set(dense) == set(net.module.state_dict())
    for layer in plan:
        row = W.factor(W.site(net, layer), *plan[layer])
        assert torch.allclose(dense[f"{layer}.weight"].flatten(), row.weight.float().flatten(), atol=1e-5)
    again = W.open_compressed(path)
    assert torch.equal(predict(again, IMAGES), predict(small.network, IMAGES))
    assert again.fingerprint == small.network.fingerprint and again.classes == net.classes


def test_the_lines_of_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = W.compress(sp.load("zoo:tutorial-cifar-net", device="cpu"), {"conv2": ("svd", 3)})
    names: dict = {}
    exec(small.code("zoo:tutorial-cifar-net"), names)
    assert torch.equal(names["small"].network.module.conv2[0].weight, small.network.module.conv2[0].weight)
    assert torch.equal(predict(names["again"], IMAGES), predict(names["small"].network, IMAGES))


def test_plain_layers_in_a_row_are_not_taken_for_factored_ones():
    tensors = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).state_dict()
    tensors = {f"body.{name}": tensor for name, tensor in tensors.items()}
    assert unfactored(tensors) == (tensors, {})
    # Two with biases in both, two full kernels, and one alone: none is a product of a scheme.
    for layers in (
        (nn.Linear(4, 3), nn.Linear(3, 2)),
        (nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3)),
        (nn.Linear(2, 2),),
    ):
        state = {f"x.{name}": tensor for name, tensor in nn.Sequential(*layers).state_dict().items()}
        assert unfactored(state)[1] == {}


def test_a_small_file_cannot_ask_for_much_memory():
    tall = {"x.0.weight": torch.zeros(1, 1).expand(1, 60_000), "x.1.weight": torch.zeros(60_000, 1)}
    assert unfactored(tall) == (tall, {})
    half = {"x.0.weight": torch.zeros(1, 600), "x.1.weight": torch.zeros(600, 1)}
    assert unfactored(half)[1] == {"x": ("svd", 1)}


def test_any_shapes_are_read_without_a_fault():
    pool = [(), (0,), (2, 3), (3, 2), (2, 0), (2, 3, 1, 1), (2, 1, 3, 1), (2, 1, 1, 3), (0, 2, 1, 1), (4, 2, 1, 3)]
    found = set()
    for shapes in itertools.chain.from_iterable(itertools.product(pool, repeat=count) for count in (1, 2, 3)):
        for dtype in (torch.float32, torch.int64):
            tensors = {f"x.{index}.weight": torch.zeros(shape, dtype=dtype) for index, shape in enumerate(shapes)}
            dense, plan = unfactored(tensors)
            assert set(dense) == ({"x.weight"} if plan else set(tensors))
            found |= {scheme for scheme, _ in plan.values()}
    assert {"svd", "separable"} <= found


def test_what_cannot_be_compressed_or_opened_is_said(tmp_path):
    net = _small()
    with pytest.raises(SpError, match="the plan names no layer"):
        W.compress(net, {})
    with pytest.raises(SpError, match="'9' is not one of the 3 weights"):
        W.compress(net, {"9": ("svd", 1)})
    with pytest.raises(SpError, match="under 'cp' is from 1 to 72; got 73"):
        W.compress(net, {"2": ("cp", 73)})
    with pytest.raises(SpError, match="must be one of svd; got 'cp'"):
        W.compress(net, {"4": ("cp", 2)})
    path = tmp_path / "own.safetensors"
    path.write_bytes(W.compress(net, {"2": ("svd", 2)}).file())
    with pytest.raises(SpError, match="make no architecture that is known here"):
        W.open_compressed(path)
    plain = tmp_path / "plain.safetensors"
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in _network().module.state_dict().items()}, plain)
    with pytest.raises(SpError, match=r"No layer of plain.safetensors is factored"):
        W.open_compressed(plain)


# --- budgets --------------------------------------------------------------------------------------------------------


def _places(net, *layers):
    places = {layer: W.site(net, layer) for layer in layers}
    return {layer: (place, W.curves(place)) for layer, place in places.items()}


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7])
def test_a_budget_is_kept_and_spent_where_it_saves_most(budget):
    net = _small()
    places = _places(net, "0", "2")
    plan = W.allot(places, budget)
    small = W.compress(net, plan)
    whole = sum(place.macs for place, _ in places.values())
    cost = whole - sum(cut.macs_before - cut.macs for cut in small.cuts)
    assert cost <= budget * whole
    kept = math.prod(1 - cut.error**2 for cut in small.cuts)
    # By hand, all pairs of what the two layers could be: nothing of the same cost keeps more energy.
    choices = []
    for place, curves in places.values():
        own = [(1.0, place.macs)]
        own += [(1 - float(e) ** 2, int(m)) for curve in curves for e, m in zip(curve.errors, curve.macs, strict=True)]
        choices.append(own)
    best = max(one[0] * two[0] for one in choices[0] for two in choices[1] if one[1] + two[1] <= cost)
    assert kept == pytest.approx(best, abs=1e-9)


def test_more_budget_is_never_worse():
    net = _small()
    places = _places(net, "0", "2")
    kept = []
    for budget in (0.1, 0.3, 0.5, 0.9):
        plan = W.allot(places, budget)
        kept.append(math.prod(1 - W.factor(places[layer][0], *how).error ** 2 for layer, how in plan.items()))
    assert kept == sorted(kept) and kept[0] < kept[-1]
    with pytest.raises(SpError, match="between 0 and 1; got 1"):
        W.allot(places, 1)
    with pytest.raises(SpError, match=r"Rank 1 everywhere costs .*; the budget was 0.1%"):
        W.allot(places, 0.001)


# --- covariance -----------------------------------------------------------------------------------------------------


class _Noise:
    name, classes, fingerprint = "noise", (), "noise-1"

    def __len__(self):
        return 7

    def batch(self, start, stop, network=None):
        images = torch.rand(7, 4, 12, 12, generator=torch.Generator().manual_seed(2))
        return images[start:stop], torch.full((stop - start,), -1)


def _two(groups=1):
    layers = (nn.Conv2d(4, 8, 3, groups=groups), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, groups=groups))
    return Network(nn.Sequential(*layers), name="two", input_size=(4, 12, 12))


def test_covariance_by_hand():
    net = _two()
    steps = list(W.covariance_steps(net, "0", "2", _Noise(), batch=3))
    assert [(step.seen, step.total) for step in steps] == [(3, 7), (6, 7), (7, 7)]
    last = steps[-1]
    images, _ = _Noise().batch(0, 7)
    with torch.no_grad():
        first = net.module[0](images)
        second = nn.functional.interpolate(net.module[2](net.module[1](first)), (10, 10), mode="nearest")
    both = torch.cat([own.transpose(0, 1).flatten(1) for own in (first, second)]).double()
    assert last.samples == both.shape[1] == 700
    assert torch.allclose(last.matrix, torch.cov(both)[:8, 8:], atol=1e-9)
    assert torch.allclose(last.correlation, torch.corrcoef(both)[:8, 8:], atol=1e-7)


def test_groups_of_filters_make_blocks():
    # Inputs are independent, so filters of different groups share nothing.
    *_, last = W.covariance_steps(_two(2), "0", "2", _Noise())
    *_, mixed = W.covariance_steps(_two(1), "0", "2", _Noise())
    assert last.block_share(2) > 0.8 > mixed.block_share(2)
    assert last.block_share(1) == pytest.approx(1)
    with pytest.raises(SpError, match="8 and 6 channels cannot both be divided into 4 groups"):
        last.block_share(4)


def test_a_dead_filter_correlates_with_nothing():
    net = _two()
    net.module[0].weight.data[3] = 0
    *_, last = W.covariance_steps(net, "0", "2", _Noise())
    assert last.correlation[3].tolist() == [0] * 6 and last.correlation.isfinite().all()
    flat = Network(nn.Sequential(nn.Conv2d(4, 2, 12), nn.Flatten(), nn.Linear(2, 2)), name="f", input_size=(4, 12, 12))
    with pytest.raises(SpError, match="Layer 2 has no positions"):
        list(W.covariance_steps(flat, "0", "2", _Noise()))
    with pytest.raises(SpError, match="One pixel in all has no covariance"):
        list(W.covariance_steps(flat, "0", "0", _Noise(), count=1))


# --- connections ----------------------------------------------------------------------------------------------------


def test_connections_are_the_layer():
    images = torch.randn(3, 2, 5, 6)
    for layer in (
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 4, 3, stride=2, groups=2),
        nn.Conv2d(2, 2, 3, dilation=2, padding=2, bias=False),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Linear(60, 7)),
    ):
        with torch.no_grad():
            expected = layer(images) - layer(torch.zeros(1, 2, 5, 6))
        made = (images.flatten(1) @ W.connections(layer, (2, 5, 6)).mT).view_as(expected)
        assert torch.allclose(made, expected, atol=1e-5)


def test_convolutions_are_banded_and_groups_are_blocks():
    full = W.connections(nn.Sequential(nn.Flatten(), nn.Linear(64, 64)), (4, 4, 4))
    banded = W.connections(nn.Conv2d(4, 4, 3, padding=1), (4, 4, 4))
    blocks = W.connections(nn.Conv2d(4, 4, 3, padding=1, groups=2), (4, 4, 4))
    assert full.count_nonzero() == 64 * 64
    inner = banded[5].count_nonzero()  # position 1,1 sees all of 3 × 3 in every channel
    assert inner == 9 * 4 and blocks[5].count_nonzero() == 9 * 2
    assert torch.count_nonzero(blocks[:32, 32:]) == 0 == torch.count_nonzero(blocks[32:, :32])
    assert torch.equal(banded[5, 0:11], banded[6, 1:12]) and torch.equal(banded[5, :11], banded[9, 4:15])  # Toeplitz


def test_what_is_not_linear_or_too_large_is_said():
    with pytest.raises(SpError, match="A ReLU is not linear"):
        W.connections(nn.ReLU(), (1, 3, 3))
    with pytest.raises(SpError, match="would be 65536×65536"):
        W.connections(nn.Identity(), (1, 256, 256))


def test_a_symmetric_network_can_be_folded_and_compressed():
    module = P.apply(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)), "triangular")
    net = Network(P.fold(module), name="folded", input_size=(3, 8, 8))
    small = W.compress(net, {"1": ("separable", 6)})
    assert small.parameters < small.parameters_before
