import copy
import gc
import threading
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop
from references import classifier, off, reference
from torch import nn

import sp_core as sp
from sp_core.rules import RULES, compare_backprop, explain_backprop
from sp_core.targets import borrowed

# One of each family, at a size it can be at; benchmarks/attributions.py has all of them.
TORCHVISION = {
    "alexnet": 64,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 48,
    "vgg11": 32,
}
# What captum 0.9 makes of them; it hooks nn.ReLU modules only.
CAPTUM_IS_THE_PLAIN_GRADIENT = {"googlenet", "inception_v3", "mobilenet_v2", "efficientnet_b0"}
CAPTUM_MISSES_SOME = {"densenet121"}


@pytest.mark.parametrize("name", TORCHVISION)
def test_equals_the_slow_reference_and_says_where_captum_is_wrong(name):
    size = TORCHVISION[name]
    net = sp.Network(classifier(name, size), name=name, input_size=(3, size, size))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    found = compare_backprop(net, images, [3, 7])
    for rule, answer in found.items():
        wanted = reference(net.clone(), images, lambda y: y[[0, 1], [3, 7]], rule)
        assert wanted.abs().max() > 0
        assert off(answer.gradient, wanted) < 1e-5, rule
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's remark on its hooks
        theirs = GuidedBackprop(net.clone()).attribute(images.clone().requires_grad_(), target=[3, 7]).detach()
    plain = found["gradient"].gradient
    if name in CAPTUM_IS_THE_PLAIN_GRADIENT:
        assert torch.equal(theirs, plain)
    if name == "efficientnet_b0":  # SiLU and sigmoid only: guided backprop is undefined, and ours says so
        assert list(found) == ["gradient"]
        return
    guided = found["guided"].gradient
    assert off(guided, plain) > 0.2  # else the comparison could not fail
    if name in CAPTUM_MISSES_SOME:
        assert off(guided, theirs) > 0.01
    elif name not in CAPTUM_IS_THE_PLAIN_GRADIENT:
        assert off(guided, theirs) < 1e-5


class Written(nn.Module):
    """y = v · rectifier(W x), each entry by hand: W x = (2, -1, 3, 0.5), v = (1, 2, -3, 0.5)."""

    def __init__(self, rectifier):
        super().__init__()
        self.rectifier = rectifier
        self.first = nn.Linear(2, 4, bias=False)
        self.last = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, -1.0], [1.0, 2.0], [0.0, 0.5]]))
            self.last.weight.copy_(torch.tensor([[1.0, 2.0, -3.0, 0.5], [0.0, 0.0, 0.0, 0.0]]))

    def forward(self, x):
        return self.last(self.rectifier(self.first(x.flatten(1))))


SPELLINGS = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "in-place method": lambda x: x.relu_(),
    "in place on a view": lambda x: x.view(-1, 2, 2).relu_().view(-1, 4),
    "F.relu in place on a view": lambda x: F.relu(x.view(-1, 2, 2), inplace=True).view(-1, 4),
    "clamp in place on a view": lambda x: x.view(-1, 2, 2).clamp_(min=0).view(-1, 4),
    "relu6": nn.ReLU6(),
    "F.relu6": F.relu6,
    "Hardtanh(0, 9)": nn.Hardtanh(0, 9),
    "clamp": lambda x: x.clamp(min=0),
    "clamp both": lambda x: x.clamp(0, 50),
    "clamp by tensor": lambda x: torch.clamp(x, min=torch.tensor(0.0)),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "Threshold": nn.Threshold(0, 0),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.0)),
    "maximum turned round": lambda x: torch.maximum(torch.zeros(4), x),
    "LeakyReLU(0)": nn.LeakyReLU(0.0),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_by_hand(spelling):
    net = sp.Network(Written(SPELLINGS[spelling]), input_size=(1, 1, 2))
    images = torch.ones(1, 1, 1, 2)  # W x = (2, -1, 3, 0.5): on, off, on, on
    expected = {
        "gradient": 1 * torch.tensor([2.0, 0.0]) - 3 * torch.tensor([1.0, 2.0]) + 0.5 * torch.tensor([0.0, 0.5]),
        "deconvnet": 1 * torch.tensor([2.0, 0.0]) + 2 * torch.tensor([0.0, -1.0]) + 0.5 * torch.tensor([0.0, 0.5]),
        "guided": 1 * torch.tensor([2.0, 0.0]) + 0.5 * torch.tensor([0.0, 0.5]),
    }
    for rule, wanted in expected.items():
        answer = explain_backprop(net, images, 0, rule)
        assert torch.equal(answer.gradient.flatten(), wanted), rule
        assert (answer.rectifiers, answer.untouched) == (1, ())
    assert torch.equal(images, torch.ones(1, 1, 1, 2))


def test_clipped_rectifier_above_its_limit():
    net = sp.Network(Written(nn.Hardtanh(0, 1)), input_size=(1, 1, 2))  # of (2, -1, 3, 0.5) only 0.5 lies inside
    images = torch.ones(1, 1, 1, 2)
    assert sp.backprop(net, images, 0, "guided").flatten().tolist() == [0.0, 0.25]
    assert sp.backprop(net, images, 0, "gradient").flatten().tolist() == [0.0, 0.25]
    assert sp.backprop(net, images, 0, "deconvnet").flatten().tolist() == [2.0, -1.75]


@pytest.mark.parametrize("leaky", [nn.LeakyReLU(0.1), lambda x: F.prelu(x, torch.tensor([0.1])), nn.RReLU(0.1, 0.1)])
def test_leaky_rectifiers_keep_their_slope_and_cut_negative_signals(leaky):
    net = sp.Network(Written(leaky), input_size=(1, 1, 2))
    images = torch.ones(1, 1, 1, 2)
    guided = torch.tensor([2.0, 0.0]) + 0.1 * 2 * torch.tensor([0.0, -1.0]) + 0.5 * torch.tensor([0.0, 0.5])
    assert torch.allclose(sp.backprop(net, images, 0, "guided").flatten(), guided)
    assert torch.allclose(sp.backprop(net, images, 0, "deconvnet").flatten(), torch.tensor([2.0, -1.75]))


def test_pre_activation_residual_where_captum_adds_before_it_cuts():
    class Block(nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return x - 2 * F.relu(x)  # the relu receives -2, the shortcut +1

    net = sp.Network(Block(), input_size=(1, 1, 2))
    images = torch.ones(1, 1, 1, 2)
    assert sp.backprop(net, images, 0, "guided").flatten().tolist() == [1.0, 0.0]
    assert sp.backprop(net, images, 0, "gradient").flatten().tolist() == [-1.0, 0.0]


# ---- Laws
def small(mean=None, std=None, activation=nn.ReLU, classes=None):
    torch.manual_seed(3)
    shared = activation()  # one module, used twice
    module = nn.Sequential(
        *[nn.Conv2d(3, 6, 3, padding=1), shared, nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), shared],
        *[nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)],
    )
    return sp.Network(module, name="small", input_size=(3, 8, 8), mean=mean, std=std, classes=classes)


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def test_guided_is_zero_where_either_mask_is_zero():
    class One(nn.Module):
        def forward(self, x):
            return (torch.relu(x - 0.5) * (torch.arange(12.0).view(3, 2, 2) - 6)).flatten(1).sum(1, keepdim=True)

    net = sp.Network(One(), input_size=(3, 2, 2))
    images = IMAGES[:1, :, :2, :2]
    found = compare_backprop(net, images, 0)
    forward, backward = images > 0.5, torch.arange(12.0).view(1, 3, 2, 2) > 6
    assert torch.equal(found["guided"].gradient != 0, forward & backward)
    assert torch.equal(found["gradient"].gradient * backward, found["guided"].gradient)
    assert torch.equal(found["deconvnet"].gradient * forward, found["guided"].gradient)


def test_with_only_positive_weights_all_three_agree_where_everything_is_on():
    net = small()
    positive = copy.deepcopy(net.module)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    found = compare_backprop(sp.Network(positive, input_size=(3, 8, 8)), IMAGES, 1)
    assert torch.equal(found["guided"].gradient, found["gradient"].gradient)
    assert torch.equal(found["deconvnet"].gradient, found["gradient"].gradient)


def test_gradient_is_of_the_images_before_normalisation():
    net = small(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.5))
    step = torch.zeros_like(IMAGES)
    step[:, 1, 3, 3] = 1e-3
    double = sp.Network(net.module.double(), input_size=(3, 8, 8), mean=net.mean, std=net.std)
    images = IMAGES.double()
    found = sp.backprop(double, images, 2, "gradient")[:, 1, 3, 3]
    numeric = (sp.predict(double, images + step) - sp.predict(double, images - step))[:, 2] / 2e-3
    assert torch.allclose(found, numeric, atol=1e-9)  # the net is linear around each image
    net.module.float()


def test_a_batch_is_its_images_one_by_one():
    net = small()
    for target in ("1:2", 3):
        many = sp.backprop(net, IMAGES, target)
        ones = torch.cat([sp.backprop(net, image[None], target) for image in IMAGES])
        assert torch.allclose(many, ones, atol=1e-7)
    assert sp.backprop(net, IMAGES[0], 3).shape == (3, 8, 8)


def test_chunks_change_nothing(monkeypatch):
    net = small()
    whole = explain_backprop(net, IMAGES, [0, 1, 2])
    monkeypatch.setattr("sp_core.rules.CHUNK", 2)
    parts = explain_backprop(net, IMAGES, [0, 1, 2])
    assert torch.allclose(whole.gradient, parts.gradient, atol=1e-7)
    assert whole.targets == parts.targets == ("class 0", "class 1", "class 2")


def test_a_unit_without_position_is_the_strongest_one_of_each_image():
    net = small()
    maps = sp.activations(net, IMAGES, ["3"])["3"]
    answer = explain_backprop(net, IMAGES, sp.Unit("3", 4), "guided")
    for image in range(3):
        index = int(maps[image, 4].argmax())
        y, x = index // 4, index % 4
        assert answer.targets[image] == f"3:4@{y},{x}"
        assert float(answer.values[image]) == float(maps[image, 4, y, x])
        alone = sp.backprop(net, IMAGES[image : image + 1], f"3:4@{y},{x}")
        assert torch.allclose(answer.gradient[image], alone[0], atol=1e-7)


def test_the_signal_stays_inside_the_receptive_field():
    gradient = sp.backprop(small(), IMAGES, "0:1@4,4", "gradient")
    outside = gradient.clone()
    outside[:, :, 3:6, 3:6] = 0
    assert gradient.abs().sum() > 0
    assert outside.abs().sum() == 0


def test_second_call_of_a_shared_module_and_vector_layers_and_names():
    net = small(classes=["a", "b", "c", "d", "e"])
    assert torch.equal(sp.backprop(net, IMAGES, "1#2:3@0,0"), sp.backprop(net, IMAGES, sp.Unit("1#2", 3, (0, 0))))
    assert torch.allclose(sp.backprop(net, IMAGES, "7:2"), sp.backprop(net, IMAGES, "C"), atol=1e-7)
    assert torch.equal(sp.backprop(net, IMAGES, torch.tensor([2, 2, 2])), sp.backprop(net, IMAGES, "2"))


# ---- It says so
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU, nn.Tanh])
def test_without_rectifier_it_raises_instead_of_returning_the_gradient(activation, rule):
    net = small(activation=activation)
    with pytest.raises(sp.SpError, match=r"undefined here: small has no rectifier between class 1 and"):
        sp.backprop(net, IMAGES, 1, rule)
    found = compare_backprop(net, IMAGES, 1)
    assert list(found) == ["gradient"]
    answer = found["gradient"]
    assert "undefined here" in answer.notes[0]
    assert explain_backprop(net, IMAGES, 1, "gradient").notes == ()
    assert answer.rectifiers == 0
    assert [count for _, count in answer.untouched] == [2]


def test_other_activations_are_counted_and_left_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.SiLU(), nn.Flatten(), nn.Linear(144, 3), nn.Hardtanh())
    answer = explain_backprop(sp.Network(module, input_size=(3, 8, 8)), IMAGES, 0)
    assert answer.rectifiers == 1
    assert answer.untouched == (("Hardtanh", 1), ("SiLU", 1))


@pytest.mark.parametrize("rule", RULES)
def test_a_signal_that_reaches_several_branches_is_cut_in_each_and_not_in_the_others(rule):
    class Branches(nn.Module):  # what arrives at one rectifier is the very tensor that the other branches receive
        def forward(self, x):
            x = x.flatten(1)
            return F.relu(x - 0.5) + F.hardtanh(x, 0.0, 0.8) + x.clamp(min=0.3) + F.threshold(x, 0.6, 0.0) - 2 * x

    net = sp.Network(Branches(), input_size=(3, 2, 2))
    images = IMAGES[:1, :, :2, :2]
    for target in (0, 5):
        wanted = torch.zeros(12)
        value = images.flatten()[target]
        on = [value > 0.5, 0 < value < 0.8, value >= 0.3, value > 0.6]
        ruled = [rule == "deconvnet" or on[0], rule == "deconvnet" or on[1], on[2], rule == "deconvnet" or on[3]]
        wanted[target] = sum(float(part) for part in ruled) - 2  # clamp(min=0.3) is no rectifier
        assert torch.equal(sp.backprop(net, images, target, rule).flatten(), wanted)


def test_a_switched_off_unit_is_said():
    net = small()
    dead = copy.deepcopy(net.module)
    with torch.no_grad():
        dead[3].bias[2] = -100.0
    net = sp.Network(dead, input_size=(3, 8, 8))
    answer = explain_backprop(net, IMAGES[:1], "1#2:2")
    assert not answer.gradient.any()
    assert "is exactly 0 on this image: it is switched off" in answer.notes[0]
    with torch.no_grad():
        dead[0].weight[0, 0, 0, 0] = float("nan")
    answer = explain_backprop(net, IMAGES[:1], 0, "gradient")
    assert "not finite" in answer.notes[0]


class NoPath(nn.Module):
    def forward(self, x):
        return torch.ones(x.shape[0], 4)


@pytest.mark.parametrize(
    ("target", "rule", "message"),
    [
        (5, "guided", "classes 0 to 4; got 5"),
        (-1, "guided", "classes 0 to 4; got -1"),
        ([0, 1], "guided", "one for each image: 3; got 2"),
        ("nowhere:3", "guided", "'nowhere' is not one of"),
        ("0:6", "guided", "channels 0 to 5; got 6"),
        ("0:1@8,0", "guided", "positions 0,0 to 7,7; got 8,0"),
        ("dog", "guided", "'dog' is not a class of small"),
        (1.5, "guided", "A target is a class number or a unit"),
        (True, "guided", "A target is a class number or a unit"),
        ([sp.Unit("0", 1), sp.Unit("3", 1), sp.Unit("3", 1)], "guided", "must be of one layer; got 0, 3"),
        (1, "lrp", "`rule` must be one of gradient, deconvnet, guided; got 'lrp'"),
    ],
)
def test_errors(target, rule, message):
    with pytest.raises(sp.SpError, match=message):
        sp.backprop(small(), IMAGES, target, rule)


def test_errors_of_networks_and_images():
    with pytest.raises(sp.SpError, match="no path from it to the pixels"):
        sp.backprop(sp.Network(NoPath(), input_size=(3, 8, 8)), IMAGES, 0)
    with pytest.raises(sp.SpError, match="does not end in one vector of class scores"):
        sp.backprop(sp.Network(nn.Conv2d(3, 4, 1), input_size=(3, 8, 8)), IMAGES, 0, "gradient")
    with pytest.raises(sp.SpError, match="`images` has 0 rows"):
        sp.backprop(small(), IMAGES[:0], 0)
    with pytest.raises(sp.SpError, match=r"floating-point in \[0, 1\]; got torch.uint8. Divide bytes by 255"):
        sp.backprop(small(), (IMAGES * 255).to(torch.uint8), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is going away; old scripted modules are not
        scripted = torch.jit.script(small().module)
    with pytest.raises(sp.SpError, match="compiled, scripted or checkpointed"):
        for _ in range(4):  # the first runs are profiled and show their nodes
            sp.backprop(sp.Network(scripted, input_size=(3, 8, 8)), IMAGES, 0)


# ---- The network is left as it was found
def state(net):
    return [
        (name, part.training, getattr(part, "inplace", None), len(part._forward_hooks), len(part._backward_hooks))
        for name, part in net.module.named_modules()
    ] + [(name, p.requires_grad, p.grad, p._version) for name, p in net.module.named_parameters()]


@pytest.mark.parametrize("target", [1, "3:2", 99, "0:1"])
def test_the_network_and_the_images_are_left_as_found(target):
    net, images = small(), IMAGES.clone()
    before, mark = state(net), net.fingerprint
    try:
        sp.backprop(net, images, target, "guided")
    except sp.SpError:
        assert target in (99, "0:1")
    assert state(net) == before
    assert sp.Network(net.module, input_size=(3, 8, 8)).fingerprint == mark
    assert torch.equal(images, IMAGES)
    assert not images.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_switched_off(context):
    net = small()
    with context():
        inside = sp.backprop(net, IMAGES.clone(), 1)
    assert torch.equal(inside, sp.backprop(net, IMAGES, 1))


def test_copies_are_lent_to_one_caller_at_a_time_and_freed_with_the_network():
    net = small()
    with borrowed(net) as first, borrowed(net) as second:
        assert len({id(first), id(second), id(net.module)}) == 3
    with borrowed(net) as again:
        assert again is first or again is second
        assert not any(part._forward_hooks for part in again.modules())
    with pytest.raises(KeyError), borrowed(net) as broken:
        raise KeyError
    with borrowed(net) as one, borrowed(net) as other, borrowed(net) as third:
        assert broken not in (one, other, third)
    known = weakref.ref(one)
    del net, first, second, again, broken, one, other, third
    gc.collect()
    assert known() is None


def test_eight_threads_of_a_hundred_mixed_calls_equal_the_serial_results():
    net = small(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.5))
    jobs = [(rule, target) for rule in RULES for target in (0, 4, "3:1", "1#2:5@1,2")]
    jobs += [(method, target) for method in ("deep_lift", "grad_cam", "occlusion") for target in (0, "3:1")]

    def call(job):
        kind, target = job
        if kind in RULES:
            return sp.backprop(net, IMAGES, target, kind)
        return sp.attribute(net, IMAGES[:1], target, kind).map

    before, serial = state(net), {job: call(job) for job in jobs}
    wrong, start = [], threading.Barrier(8)

    def work(seed):
        order = torch.randint(len(jobs), (100,), generator=torch.Generator().manual_seed(seed)).tolist()
        start.wait()
        wrong.extend(jobs[index] for index in order if not torch.equal(call(jobs[index]), serial[jobs[index]]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert state(net) == before
    assert len({value.abs().sum().item() for value in serial.values()}) == len(jobs)  # else a mix-up would not show
