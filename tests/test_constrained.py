"""Constrained networks are the parametrised ones made plain; folding ends in the layer; tails know their error."""

import numpy as np
import pytest
import torch
from torch import nn

import sp_core.parameterizations as P
from sp_core import weights as W
from sp_core.errors import SpError
from sp_core.network import Network, predict
from sp_core.weights.tail import _fit

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def _network():
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    return Network(nn.Sequential(*layers), name="small", input_size=(3, 12, 12))


@pytest.mark.parametrize("name", [name for name in P.names() if name not in P.names("groups")])
def test_a_constrained_network_is_the_parametrised_one_made_plain(name):
    net = _network()
    before = net.fingerprint
    made = W.constrained(net, name, ["2"])
    expected = P.apply(net.clone(), name, ["2"]).eval()
    assert torch.allclose(predict(made.network, IMAGES), expected(IMAGES), atol=1e-5)
    (row,) = made.layers
    weight, now = net.module[2].weight, made.network.module[2].weight
    assert row.error == pytest.approx(float((now - weight).norm() / weight.norm()), abs=1e-6)
    assert (row.before, row.kept) == (576, P.parametrized(expected)["2"].kept)
    assert made.before - made.kept == row.before - row.kept
    assert net.fingerprint == before and type(made.network.module[2]) is nn.Conv2d


def test_a_symmetric_network_loses_nothing_by_being_made_symmetric():
    once = W.constrained(_network(), "triangular").network
    twice = W.constrained(once, "average")
    assert twice.layers[0].error < 1e-7 and torch.allclose(predict(once, IMAGES), predict(twice.network, IMAGES))
    energy = next(row for row in W.symmetries(once) if row.layer == "2" and row.kind == "channels").energy
    assert energy == pytest.approx(1)
    with pytest.raises(SpError, match="0 cannot be average: 8×3 channels are not square"):
        W.constrained(_network(), "average", ["0"])


def test_grouping_a_trained_layer_keeps_its_blocks():
    net = _network()
    made = W.constrained(net, "column", ["2"], groups=4)
    weight = net.module[2].weight
    inside = sum(weight[2 * i : 2 * i + 2, 2 * i : 2 * i + 2].square().sum() for i in range(4))
    assert made.layers[0].error == pytest.approx(float((1 - inside / weight.square().sum()).sqrt()), abs=1e-6)
    assert made.layers[0].kept == 576 // 4


# --- Dirac, step by step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_the_last_step_of_folding_is_the_layer(bias, affine):
    conv = P.apply(nn.Conv2d(4, 6, 3, padding=1, bias=bias), "dirac", [""], fresh=True)
    norm = nn.BatchNorm2d(6, affine=affine)
    norm(conv(torch.randn(8, 4, 6, 6)))
    norm.eval()
    images = torch.randn(2, 4, 6, 6)
    start, first, second, third, last = P.folding_steps(conv, norm)
    rest, trained_a, trained_b, trained = P.own_parts(conv)
    assert trained and torch.equal(start.weight, rest) and torch.equal(trained_a, torch.ones(6).double())
    assert torch.allclose(trained_b, torch.full((6,), 0.1).double())
    assert torch.allclose(first.weight.flatten(1).norm(dim=1), torch.ones(6).double())
    assert torch.allclose(second.weight, trained_b.view(-1, 1, 1, 1) * first.weight)
    assert torch.allclose(third.weight - second.weight, trained_a.view(-1, 1, 1, 1) * P.delta((6, 4, 3, 3)), atol=1e-7)
    folded = nn.functional.conv2d(images, last.weight.float(), last.bias.float(), padding=1)
    with torch.no_grad():
        assert torch.allclose(folded, norm(conv(images)), atol=1e-5)


def test_dirac_parts_of_any_weight():
    weight = torch.randn(5, 5, 3, 3)
    a, b, unit = P.dirac_parts(weight)
    along = (-1, 1, 1, 1)
    made = a.view(along) * P.delta((5, 5, 3, 3)) + b.view(along) * unit
    assert torch.allclose(made, weight.double())
    assert torch.equal(a, weight.double()[range(5), range(5), 1, 1])
    with pytest.raises(SpError, match="no Dirac form: an even kernel 2×2 has no middle"):
        P.dirac_parts(torch.randn(3, 3, 2, 2))


# --- tails ----------------------------------------------------------------------------------------------------------


def _pareto(alpha, count, seed):
    draws = np.random.default_rng(seed).random(count)
    return torch.from_numpy((1 - draws) ** (-1 / (alpha - 1))).sqrt()


def test_a_planted_exponent_is_found_within_its_error():
    fits = [W.power_law_tail(_pareto(2.5, 200, seed)) for seed in range(10)]
    assert sum(abs(fit.alpha - 2.5) < 2.5 * fit.error for fit in fits) >= 8
    assert sum(fit.p > 0.1 for fit in fits) >= 7
    fit = fits[0]
    assert fit.error == pytest.approx((fit.alpha - 1) / fit.count**0.5) and fit.total == 200 and 0 <= fit.distance <= 1


def test_the_exponent_is_that_of_maximum_likelihood():
    values = np.sort(_pareto(3, 60, 1).numpy() ** 2)
    alpha, at, _ = _fit(values)
    tail = values[at:]

    def likelihood(own):
        return len(tail) * np.log((own - 1) / tail[0]) - own * np.log(tail / tail[0]).sum()

    assert likelihood(alpha) > max(likelihood(alpha * 1.01), likelihood(alpha * 0.99))


def test_what_is_no_power_law_is_ruled_out():
    steps = torch.cat([torch.linspace(1, 1.01, 100), torch.linspace(5, 5.01, 100), torch.linspace(9, 9.01, 100)])
    assert W.power_law_tail(steps).p < 0.1
    with pytest.raises(SpError, match="at least 20 singular values above zero; there are 7"):
        W.power_law_tail(torch.cat([torch.ones(7), torch.zeros(50)]))


def test_the_same_seed_gives_the_same_chance():
    values = _pareto(2.2, 80, 3)
    assert W.power_law_tail(values) == W.power_law_tail(values)
