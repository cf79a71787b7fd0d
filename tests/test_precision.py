"""Steps in bfloat16: they end where float32 ends, what is reported is float32's, and what cannot be run so says so."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sp_core as sp
from sp_core.synthesis import precision
from sp_core.synthesis.precision import Runner, quick_runner, widened


def small(dtype=torch.float32) -> sp.Network:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)
    )
    return sp.Network(layers.to(dtype), name="small", input_size=(3, 24, 24))


def ended(net, units, **settings):
    *_, last = sp.ascend(net, units, sp.AscentSettings(steps=24, size=24, **settings))
    return last


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("position", ["channel", "centre"])
def test_a_picture_ends_as_high_as_in_float32(sign, position):
    units = ["4:0", "4:3", "5:1"]
    exact, rough = (ended(small(), units, sign=sign, position=position, precision=p) for p in ("float32", "bfloat16"))
    assert (exact.precision, rough.precision) == ("float32", "bfloat16")
    scale = exact.activation.abs().max()
    assert ((exact.activation - rough.activation).abs() < 0.05 * scale).all()
    assert not torch.equal(exact.images, rough.images), "the two were computed alike"


def test_what_was_reached_is_measured_in_float32():
    net = small()
    rough = ended(net, "5:1", precision="bfloat16")
    with torch.no_grad():
        map_ = net.module(net.normalise(rough.images))[0, 1]
    assert torch.allclose(rough.activation[0], map_.mean(), rtol=1e-5)
    assert torch.allclose(rough.peak[0], map_.max(), rtol=1e-5)


def test_the_gradient_is_that_of_float32_up_to_rounding():
    net = small()
    images, found = torch.rand(2, 3, 24, 24), {}
    for low in (False, True):
        x = images.clone().requires_grad_()
        value = widened(Runner(net, low)(x, ["5"]))["5"][:, 2].mean()
        found[low] = torch.autograd.grad(value, x)[0].flatten()
        assert found[low].dtype == torch.float32
    assert F.cosine_similarity(found[False], found[True], 0) > 0.99
    assert not torch.equal(found[False], found[True])


def test_the_same_seed_gives_the_same_picture():
    first, again = (ended(small(), ["4:0", "4:1"], precision="bfloat16", seed=3) for _ in range(2))
    assert torch.equal(first.images, again.images)


def test_a_dream_in_bfloat16_is_the_dream_up_to_rounding():
    image, settings = torch.rand(3, 32, 40), {"target": "3", "octaves": 1, "steps": 3, "jitter": 4}
    exact, rough = (
        list(sp.dream(small(), image, sp.DreamSettings(**settings, precision=p)))[-1] for p in ("float32", "bfloat16")
    )
    moved = (exact.image - image).abs().mean()
    assert 0 < (exact.image - rough.image).abs().mean() < 0.2 * moved
    assert (exact.precision, rough.precision) == ("float32", "bfloat16")


def test_weights_of_the_network_are_not_rounded():
    net = small()
    before = net.fingerprint
    ended(net, "4:0", precision="bfloat16")
    assert sp.network.fingerprint(dict(net.module.state_dict())) == before
    assert all(p.dtype == torch.float32 for p in net.module.parameters())


class OnlyFloat32(nn.Module):
    """As an operation that has no kernel for bfloat16."""

    def forward(self, x):
        if x.dtype == torch.bfloat16:
            raise RuntimeError('"only_this" not implemented for BFloat16')
        return x * 2


def test_a_network_that_does_not_take_it_is_run_in_float32_or_says_so(monkeypatch):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "PRODUCTS", 0)
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 4, 3), OnlyFloat32()), name="odd", input_size=(3, 16, 16))
    assert quick_runner(net, "auto", ["1"], (16, 16)).precision == "float32"
    with pytest.raises(sp.SpError, match=r"odd cannot be run in bfloat16 \(\"only_this\" not implemented for BFloat16"):
        quick_runner(net, "bfloat16", ["1"], (16, 16))
    assert quick_runner(small(), "auto", ["4"], (24, 24)).precision == "bfloat16"


def test_auto_needs_a_processor_for_it_and_float32_weights(monkeypatch):
    monkeypatch.setattr(precision, "PRODUCTS", 0)
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda: False)
    assert quick_runner(small(), "auto", ["4"], (24, 24)).precision == "float32"
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda: True)
    assert quick_runner(small(torch.float64), "auto", ["4"], (24, 24)).precision == "float64"
    with pytest.raises(sp.SpError, match=r"its weights are torch.float64"):
        quick_runner(small(torch.float64), "bfloat16", ["4"], (24, 24))


def test_float32_steps_are_the_same_function_with_less_to_do():
    net = small()
    net.module[1].running_mean.uniform_(-1, 1)
    net.module[1].running_var.uniform_(0.5, 2)
    quick, plain = quick_runner(net, "float32", ["5"], (24, 24)), Runner(net)
    assert plain.exact and not quick.exact and quick.precision == "float32"
    assert isinstance(quick._clone[1], nn.Identity), "the normalisation is folded"
    assert quick._clone[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(net.module[1], nn.BatchNorm2d) and net.module[3].weight.is_contiguous()
    images, found = torch.rand(2, 3, 24, 24), []
    for run in (plain, quick):
        x = images.clone().requires_grad_()
        map_ = run(x, ["5"])["5"]
        found.append((map_.detach(), torch.autograd.grad(map_[:, 2].mean(), x)[0]))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-5 * a.abs().max() and not torch.equal(a, b)


class Flat(nn.Module):
    """Reads its input as it lies in memory, which does not go for pictures that lie channels last."""

    def forward(self, x):
        return x.view(len(x), -1)


def test_a_network_that_reads_memory_in_order_is_run_as_it_is():
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 4, 3), Flat(), nn.Linear(784, 5)), name="flat", input_size=(3, 16, 16))
    assert quick_runner(net, "float32", ["2"], (16, 16)).exact
    *_, last = sp.ascend(net, 1, sp.AscentSettings(steps=3))
    assert last.precision == "float32"


@pytest.mark.parametrize(("groups", "dense"), [(1, True), (48, False)])
def test_bfloat16_is_for_networks_whose_products_take_the_time(groups, dense):
    layers = nn.Sequential(nn.Conv2d(3, 48, 1), nn.Conv2d(48, 48, 3, groups=groups), nn.Conv2d(48, 48, 1))
    assert precision._is_dense(sp.Network(layers, input_size=(3, 16, 16))) == dense


def test_an_unknown_precision_is_a_sentence():
    for settings in (sp.AscentSettings, sp.DreamSettings):
        with pytest.raises(sp.SpError, match="`precision` must be one of auto, float32, bfloat16; got 'half'"):
            settings(precision="half")
