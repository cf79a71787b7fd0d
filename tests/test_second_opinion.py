"""captum's own maps beside ours: equal where both are right, and said in words where captum is not."""

import math
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import nn

import sp_core as sp
from sp_core.asking_captum import _ASK, NAMES
from sp_core.methods import METHODS
from sp_core.second_opinion import SAME, agreement, captums, sentence

IMAGE = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(4))
SETTINGS = {
    "integrated_gradients": {"steps": 20, "baseline": "blurred"},
    "smoothgrad": {"samples": 20, "noise": 0.2, "seed": 7},
    "occlusion": {"window": 4, "stride": 2},
    "deep_lift": {"baseline": "black"},
}
FEEDING = {"input_size": (3, 14, 14), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


class Flat(nn.Module):
    """Flattens; captum's LRP has no rule for ``nn.Flatten``, and passes by a module that has a part."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Dropout()

    def forward(self, x):
        return x.flatten(1)


def plain_cnn(pool=nn.AvgPool2d):
    torch.manual_seed(3)
    return nn.Sequential(
        *[nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), pool(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()],
        *[nn.AdaptiveAvgPool2d(2), Flat(), nn.Linear(32, 5)],
    )


class Functional(nn.Module):
    """The same layers with rectifiers that are functions."""

    def __init__(self):
        super().__init__()
        self.first, self.pool, self.last, *self.rest = (part for part in plain_cnn() if not isinstance(part, nn.ReLU))
        self.rest = nn.Sequential(*self.rest)

    def forward(self, x):
        return self.rest(F.relu(self.last(self.pool(F.relu(self.first(x))))))


class Reused(nn.Module):
    """One rectifier that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.pool, self.last, _, *rest = plain_cnn()
        self.rest = nn.Sequential(*rest)

    def forward(self, x):
        return self.rest(self.relu(self.last(self.pool(self.relu(self.first(x))))))


PLAIN = sp.Network(plain_cnn(), name="plain", **FEEDING)
FUNCTIONAL = sp.Network(Functional(), name="functional", **FEEDING)
REUSED = sp.Network(Reused(), name="reused", **FEEDING)


def both(net, method, target=2, **settings):
    settings = settings or SETTINGS.get(method, {})
    return captums(net, IMAGE, target, method, **settings), sp.attribute(net, IMAGE, target, method, **settings)


def test_captum_is_asked_about_every_method():
    assert set(NAMES) == set(_ASK) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [2, "3:1", "4:1@2,3"])
def test_where_captum_sees_every_rectifier_it_is_the_same(method, target):
    if method == "lrp" and target != 2:
        with pytest.raises(sp.SpError, match="LRP starts from a class"):
            captums(PLAIN, IMAGE, target, method)
        return
    theirs, ours = both(PLAIN, method, target)
    assert theirs.raised is None
    assert ours.map.any()
    assert theirs.map.shape == ours.map.shape
    assert theirs.map.dtype == ours.map.dtype
    assert not theirs.map.requires_grad
    found = agreement(theirs.map, ours.map)
    assert found.same
    assert found.correlation > 0.99999
    assert "is the same as ours" in sentence(theirs, ours)
    assert theirs.name in sentence(theirs, ours)


def test_with_max_pools_deep_lift_differs_and_both_sums_are_said():
    torch.manual_seed(0)
    theirs, ours = both(sp.Network(plain_cnn(nn.MaxPool2d), **FEEDING), "deep_lift")
    assert not agreement(theirs.map, ours.map).same
    assert abs(float(ours.gap[0])) < 1e-4 * abs(float(ours.expected[0]))
    assert "differs from ours: correlation 0." in sentence(theirs, ours)
    assert "(completeness error " in sentence(theirs, ours)
    assert f", ours to {float(ours.map.double().sum()):.4g} of " in sentence(theirs, ours)


@pytest.mark.parametrize("method", ["deconvnet", "guided", "guided_grad_cam"])
def test_on_functional_rectifiers_captum_is_the_plain_gradient_and_that_is_said(method):
    theirs, ours = both(FUNCTIONAL, method)
    gradient = sp.backprop(FUNCTIONAL, IMAGE, 2, "gradient")
    if method == "guided_grad_cam":
        gradient = gradient * sp.attribute(FUNCTIONAL, IMAGE, 2, "grad_cam").map
    assert torch.allclose(theirs.map, gradient, rtol=1e-4, atol=1e-7)
    assert theirs.from_gradient < SAME
    assert "is the plain gradient" in sentence(theirs, ours)
    assert ("times Grad-CAM" in sentence(theirs, ours)) == (method == "guided_grad_cam")
    of_modules, ours = both(PLAIN, method)
    assert of_modules.from_gradient > SAME
    assert "plain gradient" not in sentence(of_modules, ours)


def test_where_ours_is_undefined_captums_is_shown_for_what_it_is():
    smooth = sp.Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(576, 5)), **FEEDING)
    with pytest.raises(sp.SpError, match="no rectifier"):
        sp.attribute(smooth, IMAGE, 2, "guided")
    words = sentence(captums(smooth, IMAGE, 2, "guided"), None)
    assert words.endswith("GuidedBackprop gives the plain gradient, without a warning.")


def test_what_captum_raises_is_a_sentence():
    theirs, ours = both(REUSED, "deep_lift")
    assert theirs.map is None
    assert theirs.gap is None
    assert "DeepLift raises RuntimeError: A Module ReLU() was detected that does not contain" in sentence(theirs, ours)
    assert len(sentence(theirs, ours)) < 300
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(576, 5)), **FEEDING)
    theirs, ours = both(net, "lrp")
    assert "LRP raises TypeError: Module of type" in sentence(theirs, ours)


def test_a_module_that_runs_twice_is_named_where_a_layer_is_chosen():
    theirs, ours = both(REUSED, "grad_cam", layer="relu#2")
    assert agreement(theirs.map, ours.map).same
    assert "relu runs 2 times" in theirs.notes[0]
    theirs, ours = both(REUSED, "grad_cam", layer="relu")
    assert not agreement(theirs.map, ours.map).same
    assert captums(REUSED, IMAGE, 2, "grad_cam", layer="last").notes == ()


def test_where_windows_do_not_fit_the_two_differ_at_the_edge_only_and_it_says_so():
    theirs, ours = both(PLAIN, "occlusion", window=4, stride=3)  # starts at 0, 3, 6, 9, and 10 where it was 12
    assert torch.allclose(theirs.map[..., :9, :9], ours.map[..., :9, :9], atol=1e-5)
    assert not torch.allclose(theirs.map, ours.map, atol=1e-4)
    assert "at the right and lower edge" in theirs.notes[0]
    assert captums(PLAIN, IMAGE, 2, "occlusion", window=4, stride=2).notes == ()


def test_what_captum_says_it_adds_up_to_is_its_own_convergence_delta():
    theirs, ours = both(PLAIN, "integrated_gradients", steps=3, baseline="black")
    way = IntegratedGradients(lambda x: PLAIN.module(PLAIN.normalise(x)))
    _, delta = way.attribute(IMAGE, target=2, n_steps=3, return_convergence_delta=True)
    assert theirs.gap == pytest.approx(float(delta), abs=1e-6)
    assert theirs.gap == pytest.approx(float(ours.gap[0]), abs=1e-5)
    assert theirs.expected == pytest.approx(float(ours.expected[0]), abs=1e-5)
    theirs, ours = both(PLAIN, "lrp")
    logit = float(sp.predict(PLAIN, IMAGE)[0, 2])
    assert theirs.expected == pytest.approx(logit, abs=1e-5)
    assert theirs.gap == pytest.approx(float(ours.expected[0]) - logit, abs=1e-4)


def test_agreement_of_maps_that_are_constant_or_not_finite():
    zero, one = torch.zeros(4), torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert agreement(zero, zero).same
    assert math.isnan(agreement(zero, zero).correlation)
    assert agreement(one, zero).difference == math.inf
    assert agreement(one + 1e-6, one).same
    assert agreement(2 * one, one).correlation == 1
    broken = agreement(torch.tensor([0.0, math.nan, 1.0, 1.0]), one)
    assert math.isnan(broken.difference)
    assert not broken.same


@pytest.mark.parametrize("method", METHODS)
def test_many_threads_get_what_one_gets_and_the_network_is_left_as_it_was(method):
    net = sp.Network(plain_cnn(), **FEEDING).fed(classes=list("abcde"))
    before = {name: tensor.clone() for name, tensor in net.module.state_dict().items()}
    versions = [p._version for p in net.module.parameters()]
    random = torch.get_rng_state()
    filters = list(warnings.filters)
    settings = SETTINGS.get(method, {})
    wanted = [captums(net, IMAGE, target, method, **settings).map for target in range(4)]
    got = {}

    def ask(number):
        got[number] = captums(net, IMAGE, number % 4, method, **settings).map

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[number], wanted[number % 4]) for number in range(8))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.module.state_dict().items())
    assert versions == [p._version for p in net.module.parameters()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(part, name) for part in net.module.modules() for name in hooks)
    assert not any(p.requires_grad for p in net.module.parameters())
    assert not any(hasattr(part, name) for part in net.module.modules() for name in ("rule", "activations", "input"))
    assert torch.equal(random, torch.get_rng_state()), "noise is not drawn from the generator that all threads share"
    assert filters == list(warnings.filters)


def test_a_float64_network_keeps_its_weights_though_captum_writes_to_them():
    net = sp.Network(plain_cnn().double(), **FEEDING)
    before = net.fingerprint
    assert captums(net, IMAGE.double(), 2, "lrp").map.any()
    net.__dict__.pop("fingerprint")
    assert net.fingerprint == before


def test_memory_is_bounded(monkeypatch):
    seen = []
    forward = PLAIN.module.__class__.forward
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    for method, settings in [
        ("integrated_gradients", {"steps": 100}),
        ("smoothgrad", {"samples": 100}),
        ("occlusion", {"window": 3, "stride": 1}),
    ]:
        captums(PLAIN, IMAGE, 1, method, **settings)
    assert max(seen) == 16


@pytest.mark.parametrize(
    ("image", "target", "method", "settings", "message"),
    [
        (IMAGE.repeat(2, 1, 1, 1), 2, "guided", {}, "one image at a time; got 2"),
        (IMAGE, 2, "magic", {}, "`method` must be one of"),
        (IMAGE, 2, "guided", {"size": 3}, "guided has no settings; got 'size'"),
        (IMAGE, 9, "guided", {}, "classes 0 to 4; got 9"),
        (IMAGE, 2, "grad_cam", {"layer": "7"}, "7 puts out a vector"),
        (IMAGE, 2, "deep_lift", {"baseline": "pink"}, "got 'pink'"),
    ],
)
def test_a_question_without_an_answer_is_refused_as_ours_refuses_it(image, target, method, settings, message):
    with pytest.raises(sp.SpError, match=message):
        captums(PLAIN, image, target, method, **settings)


def test_it_works_inside_inference_mode():
    with torch.inference_mode():
        inside = captums(PLAIN, IMAGE, 2, "guided").map
    assert torch.equal(inside, captums(PLAIN, IMAGE, 2, "guided").map)
