"""What is odd about weights: each finding provoked, and its absence on a network that has seen training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.checkpoints import load
from sp_core.checkpoints.names import record
from sp_core.health import Finding, health, looks_untrained, summary


def healthy() -> nn.Sequential:
    """A tiny network whose weights bear traces of training: heavy tails and shared directions."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5), nn.Sigmoid()
    )
    with torch.no_grad():
        for part in (module[0], module[4]):
            draws = torch.randn(part.weight.shape, generator=generator)
            part.weight.copy_(0.1 * draws * draws.abs() + 0.02)
        module[1].running_mean.uniform_(-1, 1, generator=generator)
        module[1].running_var.uniform_(0.5, 2, generator=generator)
    return module


def findings(module: nn.Module) -> list[tuple[str, str]]:
    return [(found.where, found.kind) for found in health(sp.Network(module, input_size=(3, 8, 8)))]


def test_a_healthy_network_has_no_findings():
    assert findings(healthy()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_var", "4.weight"])
def test_nan_and_infinity_are_found_and_hide_nothing_else(name, value):
    module = healthy()
    module.state_dict()[name].view(-1)[1] = value
    with torch.no_grad():
        module[4].weight[2] *= 1e-6
    (first, *others) = health(sp.Network(module, input_size=(3, 8, 8)))
    assert (first.where, first.kind) == (name, "nan") and "1 of " in first.text
    assert [found.kind for found in others] == ([] if name == "4.weight" else ["dead"])


def test_large_finite_numbers_are_not_called_infinite():
    module = healthy()
    with torch.no_grad():
        module[0].weight.view(-1)[:2] = 3e38  # their sum overflows
    assert "nan" not in [kind for _, kind in findings(module)]


def test_dead_filters_are_counted():
    module = healthy()
    with torch.no_grad():
        module[0].weight[[2, 5, 7]] *= 1e-4
        module[4].weight[1] = 0
    found = health(sp.Network(module, input_size=(3, 8, 8)))
    assert [(item.where, item.kind) for item in found] == [("0", "dead"), ("4", "dead")]
    assert found[0].text.startswith("0: 3 of 16 filters are dead") and "1 of 5" in found[1].text


def test_filters_of_a_transposed_convolution_are_its_outputs():
    part = nn.ConvTranspose2d(3, 6, 3)
    with torch.no_grad():
        part.weight.pow_(3)
        part.weight[:, 4] = 0
    found = health(sp.Network(nn.Sequential(part), input_size=(3, 8, 8)))
    assert any("1 of 6 filters are dead" in item.text for item in found)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_constant_layers(value):
    module = healthy()
    nn.init.constant_(module[0].weight, value)
    assert findings(module) == [("0", "constant")]


def test_a_normalisation_that_multiplies_by_zero():
    module = healthy()
    nn.init.zeros_(module[1].weight)
    assert findings(module) == [("1", "constant")]


@pytest.mark.parametrize(
    ("value", "words"),
    [(-0.5, "below 0"), (0.0, "practically 0"), (1e-30, "practically 0"), (1e9, "above 1e6")],
)
def test_running_variances_out_of_range(value, words):
    module = healthy()
    module[1].running_var[[3, 4]] = value
    (found,) = health(sp.Network(module, input_size=(3, 8, 8)))
    assert found.kind == "batch norm" and words in found.text and "2 of 16" in found.text
    assert f"{value:.3g}" in found.text


def test_a_normalisation_that_was_never_run():
    module = healthy()
    module[1].reset_running_stats()
    assert findings(module) == [("1", "untrained")]
    module[1].running_mean[0] = 1e-6  # one step is enough
    assert findings(module) == []


def test_a_normalisation_without_statistics_or_scale_is_let_be():
    module = healthy()
    module[1] = nn.BatchNorm2d(16, affine=False, track_running_stats=False)
    assert findings(module) == []


SHAPES = [(64, 27), (96, 363), (16, 32), (10, 512), (512, 9), (700, 2000)]
INITIALISATIONS = {
    "torch's default": (lambda w: nn.init.kaiming_uniform_(w, a=5**0.5), "uniform"),
    "Kaiming normal": (nn.init.kaiming_normal_, "normal"),
    "Xavier uniform": (nn.init.xavier_uniform_, "uniform"),
    "small normal": (lambda w: nn.init.normal_(w, 0, 0.01), "normal"),
    "cut normal": (lambda w: nn.init.trunc_normal_(w, 0, 0.02, -0.04, 0.04), "normal"),
    "orthogonal": (nn.init.orthogonal_, "orthogonal"),
}


@pytest.mark.parametrize("name", INITIALISATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_fresh_weights_look_untrained(name, shape):
    fill, words = INITIALISATIONS[name]
    torch.manual_seed(3)
    assert sum(words in looks_untrained(fill(torch.empty(shape))) for _ in range(5)) >= 4


def test_false_alarms_of_chance_are_rare():
    torch.manual_seed(0)
    missed = sum(not looks_untrained(torch.randn(32, 27)) for _ in range(300))
    assert missed <= 6


# Each trace that training leaves, alone and small; all else is as in fresh normal weights.
TRACES = {
    "a mean": lambda w: w + 0.1,
    "heavy tails": lambda w: w * (1 + 0.3 * w.abs()),
    "skewness": lambda w: w + 0.1 * (w.square() - 1),
    "filters of unequal length": lambda w: w * torch.linspace(0.7, 1.3, len(w))[:, None],
    "inputs of unequal weight": lambda w: w * torch.linspace(0.7, 1.3, w.shape[1]),
    "a shared direction": lambda w: w + 1.5 * torch.outer(nn.functional.normalize(torch.randn(len(w)), dim=0),
                                                         torch.randn(w.shape[1]).sign()),
}  # fmt: skip


@pytest.mark.parametrize("trace", TRACES)
def test_each_trace_of_training_is_seen(trace):
    torch.manual_seed(5)
    fresh = torch.randn(64, 288)
    assert looks_untrained(fresh)
    assert looks_untrained(TRACES[trace](fresh)) == ""


def test_scale_does_not_matter_and_few_weights_are_not_judged():
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    assert looks_untrained(weight * 1e-6) == looks_untrained(weight * 1e6) == looks_untrained(weight) != ""
    assert looks_untrained(torch.randn(8, 9)) == "" and looks_untrained(torch.zeros(64, 64)) == ""


def convolutions_and_matrices(net: sp.Network) -> set[str]:
    return {name for name, part in net.module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}


@pytest.mark.parametrize("name", ["textures-alexnet", "textures-vgg", "textures-resnet"])
def test_trained_networks_look_trained_and_untrained_ones_do_not(name):
    trained, fresh = load(f"bundled:{name}", device="cpu"), load(f"zoo:{name}", device="cpu")
    layers = convolutions_and_matrices(trained)
    flagged = {item.where for item in health(trained) if item.kind == "untrained"}
    assert len(flagged & layers) <= len(layers) / 10
    flagged = {item.where for item in health(fresh) if item.kind == "untrained"}
    assert len(flagged & layers) >= 0.9 * len(layers)


def test_a_fresh_head_on_a_trained_trunk_is_found():
    net = load("bundled:textures-vgg", device="cpu")
    module = net.clone()
    torch.manual_seed(0)
    module.classifier = nn.Linear(128, 7)
    flagged = [item.where for item in health(sp.Network(module, input_size=(3, 64, 64))) if item.kind == "untrained"]
    assert flagged == ["classifier"]


@pytest.mark.skipif("SP_REAL_DATA" not in os.environ, reason="SP_REAL_DATA (real weights) is not set")
@pytest.mark.parametrize("name", ["squeezenet1_0.pth", "mobilenet_v2.pth"])
def test_imagenet_weights_look_trained(name):
    net = load(Path(os.environ["SP_REAL_DATA"]) / "imagenet" / name, device="cpu")
    assert [item.where for item in health(net) if item.kind in {"untrained", "nan", "constant"}] == []


def test_summary_is_a_line_a_kind():
    found = [Finding("b", "dead", "b: 1 of 2."), *(Finding(f"a{i}", "nan", "") for i in range(5))]
    assert summary(found) == [("nan", "5 tensors hold NaN or infinity (a0, a1, a2, …)."), ("dead", "b: 1 of 2.")]
    assert summary([]) == []


# --- what training left beside the weights --------------------------------------------------------------------------


def test_the_settings_of_an_optimiser_are_kept_and_its_state_is_not():
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimiser.step()
    facts = record({"epoch": 7, "optimizer": optimiser.state_dict()})
    assert facts["epoch"] == 7
    assert (facts["optimizer"]["lr"], facts["optimizer"]["momentum"]) == (0.1, 0.9)
    assert "state" not in facts["optimizer"] and "params" not in facts["optimizer"]


def test_training_reaches_the_card_as_plain_json(tmp_path):
    state = sp.zoo.create("textures-vgg").state_dict()
    content = {
        "state_dict": state,
        "epoch": 7,
        "best_acc1": 0.5,
        "loss": float("nan"),
        "args": {"lr": 0.1},
        "by": "\x1b[31m",
    }
    torch.save(content, tmp_path / "run.pth")
    card = sp.describe(load(tmp_path / "run.pth", device="cpu"))
    assert card["training"] == {"epoch": 7, "best_acc1": 0.5, "loss": "nan", "args": {"lr": 0.1}, "by": " [31m"}
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert "training: epoch 7, best_acc1 0.5" in sp.card.as_text(card)
    assert {item["kind"] for item in card["health"]} == {"untrained"} and "look untrained" in sp.card.as_text(card)


def test_a_bundled_network_says_how_it_was_trained():
    card = sp.describe(load("bundled:textures-vgg", device="cpu"))
    assert card["training"]["held_out_accuracy"] > 0.9 and card["training"]["recipe"]["batch"] > 0
    assert not {"mean", "classes", "sha256", "architecture"} & set(card["training"])
    assert card["dtype"] == "float32" and card["bytes"] >= 4 * card["parameters"]
