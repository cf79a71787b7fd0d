"""DeepLift by hand, against a slow second opinion, against captum where captum is complete, and its completeness."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from references import classifier, lifted, off
from torch import nn

import sp_core as sp
from sp_core import deep_lift as lifting
from sp_core.deep_lift import deep_lift, in_float64
from sp_core.lift_rules import gauss_legendre
from sp_core.methods import blurred
from sp_core.targets import read_target


def net_of(forward, size=(1, 1, 4)):
    class Module(nn.Module):
        def forward(self, x):
            return forward(x)

    return sp.Network(Module(), name="small", input_size=size)


def row(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).view(1, 1, 1, -1)


def contributions(net, images, references, target=0):
    found = deep_lift(net, images, references, read_target(net, target, len(images)))
    assert (found.gap.abs() <= 1e-10 * found.expected.abs() + 1e-12).all()  # complete
    return found.contributions


# ---- By hand
def test_a_rectifier_passes_on_its_average_slope():
    net = net_of(lambda x: F.relu(x.flatten(1)).sum(1, keepdim=True))
    found = contributions(net, row(1.0, 0.2, 0.5, 0.5), row(0.0, 0.8, 0.5, 0.9))
    assert found.flatten().tolist() == pytest.approx([1.0, -0.6, 0.0, -0.4])
    net = net_of(lambda x: F.relu(x.flatten(1) - 0.5).sum(1, keepdim=True))  # the gradient would be 1, 0, 0, 0
    found = deep_lift(net, row(1.0, 0.2, 0.5, 0.1), row(0.0, 0.8, 0.5, 0.3), read_target(net, 0, 1))
    assert found.multipliers.flatten().tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert found.contributions.flatten().tolist() == pytest.approx([0.5, -0.3, 0.0, 0.0])


def test_a_product_is_shared_evenly():
    net = net_of(lambda x: (x[:, 0, :, 0] * x[:, 0, :, 1]) * 2)
    found = contributions(net, row(0.9, 0.7, 0.0, 0.0), row(0.1, 0.3, 0.0, 0.0))
    assert found.flatten().tolist() == pytest.approx([2 * 0.8 * 0.5, 2 * 0.4 * 0.5, 0, 0])


def test_max_pool_gives_the_rise_to_the_winner_and_the_fall_to_the_old_one():
    pool = net_of(lambda x: F.max_pool2d(x, (1, 4)).flatten(1))
    assert contributions(pool, row(0.9, 0.2, 0.1, 0.3), row(0.4, 0.5, 0.1, 0.0)).flatten().tolist() == pytest.approx(
        [0.4, 0.0, 0.0, 0.0]  # from 0.5 up to 0.9
    )
    assert contributions(pool, row(0.3, 0.2, 0.1, 0.0), row(0.1, 0.8, 0.1, 0.0)).flatten().tolist() == pytest.approx(
        [0.0, -0.5, 0.0, 0.0]  # from 0.8 down to 0.3
    )
    flat = contributions(pool, row(0.0, 0.2, 0.6, 0.1), row(0.9, 0.9, 0.9, 0.9))
    assert flat.flatten().tolist() == pytest.approx([0.0, 0.0, -0.3, 0.0])  # all win there; the image's winner here


def test_overlapping_windows_add_up():
    pool = net_of(lambda x: F.max_pool2d(x, (1, 3), stride=1).sum((2, 3)))
    assert contributions(pool, row(0.1, 0.9, 0.2, 0.3), row(0.0, 0.0, 0.0, 0.0)).flatten().tolist() == pytest.approx(
        [0.0, 1.8, 0.0, 0.0]
    )


# ---- Every operation in every spelling is complete, and goes by the secant
def squeezed(x, gate):
    return (x * gate(x.mean((2, 3), keepdim=True))).flatten(1)


SPELLINGS = {
    "module": nn.ReLU(),
    "in place": lambda x: F.relu(x * 1.0, True),
    "method in place": lambda x: (x * 1.0).relu_(),
    "in place on a view": lambda x: (x * 1.0).view(-1, 4).relu_().view(x.shape),
    "clamp in place": lambda x: (x * 1.0).clamp_(min=0),
    "threshold in place": lambda x: F.threshold(x * 1.0, 0.1, 0.0, True),
    "relu6": nn.ReLU6(),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "PReLU": lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "SiLU": nn.SiLU(),
    "SiLU in place": lambda x: F.silu(x * 1.0, inplace=True),
    "GELU": nn.GELU(),
    "Hardswish": nn.Hardswish(),
    "ELU": nn.ELU(),
    "Softplus": nn.Softplus(),
    "LogSigmoid": nn.LogSigmoid(),
    "sigmoid": torch.sigmoid,
    "power": lambda x: (x + 2) ** 3,
    "reciprocal": lambda x: 1 / (x + 2),
    "maximum with a number": lambda x: torch.maximum(x, torch.tensor(0.1, dtype=x.dtype)),
    "gate": lambda x: squeezed(x, torch.sigmoid),
    "gate in place": lambda x: (x * 1.0).mul_(torch.sigmoid(x.mean((2, 3), keepdim=True))),
    "gate the other way round": lambda x: torch.sigmoid(x.mean((2, 3), keepdim=True)) * x,
    "*=": lambda x: _times(x * 1.0),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "einsum": lambda x: torch.einsum("nchw,nchv->ncwv", x, x),
    "softmax": lambda x: x.flatten(2).softmax(2),
    "quotient": lambda x: x / (x.square().sum((1, 2, 3), keepdim=True) + 1),
    "LayerNorm": nn.LayerNorm([3, 6], dtype=torch.float64),
    "GroupNorm": nn.GroupNorm(2, 2, dtype=torch.float64),
    "InstanceNorm": nn.InstanceNorm2d(2, affine=True, dtype=torch.float64),
    "InstanceNorm with statistics": nn.InstanceNorm2d(2, track_running_stats=True, dtype=torch.float64),
    "LocalResponseNorm": nn.LocalResponseNorm(2),
    "max-pool": nn.MaxPool2d(2, 1),
    "max-pool, padded, ceil": nn.MaxPool2d(2, 2, 1, ceil_mode=True),
    "dilated max-pool": lambda x: torch.max_pool2d(x, 2, 1, 0, 2),
    "max-pool 1d": lambda x: F.max_pool1d(x.flatten(2), 3, 2),
    "adaptive max-pool": nn.AdaptiveMaxPool2d(2),
    "concatenation and sum": lambda x: torch.cat([F.relu(x), x - F.relu(x)], 1) + 0.5,
    "mean-pool": nn.AvgPool2d(2),
    "batch norm": nn.BatchNorm2d(2, dtype=torch.float64),
}


def _times(x):
    x *= torch.sigmoid(x)
    return x


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_complete_for_every_operation(spelling):
    torch.manual_seed(0)
    first = nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.part = first, SPELLINGS[spelling]

        def forward(self, x):
            y = self.part(self.first(x)).flatten(1)
            number = torch.arange(y.shape[1], dtype=y.dtype)
            return F.silu(torch.stack([(y * number.cos()).sum(1), (y * number).sum(1)], 1))

    net = sp.Network(Module(), input_size=(2, 3, 6))
    image, start = torch.rand(2, 2, 2, 3, 6, dtype=torch.float64)
    before = [p._version for p in net.module.parameters()], image.clone()
    for target in (0, 1):
        found = deep_lift(net, image, start, read_target(net, target, 2))
        assert (found.gap.abs() < 1e-9 * found.expected.abs()).all()
        again = deep_lift(net, start, image, read_target(net, target, 2))
        assert off(-again.contributions, found.contributions) < 1e-9  # from the image to the reference: the other sign
    assert before[0] == [p._version for p in net.module.parameters()]
    assert torch.equal(image, before[1])


# ---- Whole networks
NETWORKS = {
    "resnet18": 32,
    "alexnet": 64,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 48,
    "regnet_y_400mf": 32,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("start", ["black", "blurred"])
def test_equals_the_slow_reference(name, start):
    size = NETWORKS[name]
    net = sp.Network(classifier(name, size).double(), name=name, input_size=(3, size, size))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2)).double()
    references = torch.zeros_like(images) if start == "black" else blurred(images)
    found = deep_lift(net, images, references, read_target(net, [3, 7], 2))
    assert (found.gap.abs() < 1e-9 * found.expected.abs() + 1e-12).all()
    wanted = lifted(net.clone(), images, references, lambda y: y[[0, 1], [3, 7]])
    assert wanted.abs().max() > 0
    assert off(found.contributions, wanted) < 1e-9
    plain = sp.backprop(net, images, [3, 7], "gradient") * (images - references)
    assert off(plain, found.contributions) > 0.1  # else the comparison could not fail


@pytest.mark.parametrize(
    ("name", "captum"), [("mnasnet0_5", "complete"), ("regnet_x_400mf", "complete"), ("mobilenet_v2", "incomplete")]
)
def test_equals_captum_where_captum_is_complete(name, captum):
    net = sp.Network(classifier(name, 32).double(), name=name, input_size=(3, 32, 32))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()
    start = blurred(image)
    found = deep_lift(net, image, start, read_target(net, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DeepLift(net.clone()).attribute(image.clone().requires_grad_(), start, target=3).detach()
    missing = float((theirs.sum() - found.expected).abs() / found.expected.abs())
    if captum == "complete":
        assert missing < 1e-9
        assert off(theirs, found.contributions) < 1e-9
    else:
        assert missing > 0.1


def test_captum_raises_on_a_reused_rectifier_and_loses_pools_where_ours_does_not():
    torch.manual_seed(0)
    shared = nn.ReLU()
    module = nn.Sequential(
        *[nn.Conv2d(3, 4, 3), shared, nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3), shared, nn.Flatten(), nn.Linear(16, 2)]
    )
    net = sp.Network(module.double(), input_size=(3, 12, 12))
    image, start = torch.rand(2, 1, 3, 12, 12, dtype=torch.float64)
    contributions(net, image, start)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="used more than once"):
        warnings.simplefilter("ignore")
        DeepLift(net.clone()).attribute(image.clone().requires_grad_(), start, target=0)


# ---- Precision, units, threads, errors
def test_rounding_in_float32_calls_for_float64(monkeypatch):
    net = sp.Network(classifier("mobilenet_v3_small", 32), input_size=(3, 32, 32))
    image = torch.rand(1, 3, 32, 32)
    aim = read_target(net, 3, 1)
    assert deep_lift(net, image, blurred(image), aim).precision is torch.float32
    monkeypatch.setattr(lifting, "TOLERANCE", 1e-12)
    found = deep_lift(net, image, blurred(image), aim)
    assert found.precision is torch.float64
    assert float(found.gap.abs() / found.expected.abs()) < 1e-11
    assert next(net.module.parameters()).dtype is torch.float32
    answer = sp.attribute(net, image, 3, "deep_lift")
    assert answer.map.dtype is torch.float32
    assert "Computed in float64" in answer.notes[0]


def test_a_copy_in_float64_leaves_the_network():
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), input_size=(3, 8, 8))
    wide = in_float64(net)
    assert {t.dtype for t in wide.module.state_dict().values()} == {torch.float64, torch.int64}
    assert {t.dtype for t in net.module.state_dict().values()} == {torch.float32, torch.int64}


def test_for_units_and_normalised_networks():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.Tanh())
    net = sp.Network(module.double(), input_size=(3, 12, 12), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    image = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    for baseline in ("black", "mean", "white", "blurred", 0.3):
        answer = sp.attribute(net, image, "4:2", "deep_lift", baseline=baseline)
        assert answer.gap.abs() < 1e-12
        assert answer.expected.abs() > 1e-3
        y, x = map(int, answer.targets[0].partition("@")[2].split(","))  # of the image, not of the baseline
        assert float(answer.values[0]) == pytest.approx(float(sp.activations(net, image, ["4"])["4"][0, 2, y, x]))
        outside = answer.map.clone()
        outside[..., 2 * y : 2 * y + 8, 2 * x : 2 * x + 8] = 0
        assert not outside.any()


def test_threads_do_not_see_each_other(one_thread):
    net = sp.Network(classifier("squeezenet1_1", 32), input_size=(3, 32, 32))
    images = torch.rand(4, 1, 3, 32, 32)
    serial = [sp.attribute(net, image, 3, "deep_lift").map for image in images]
    plain = [sp.backprop(net, image, 3, "gradient") for image in images]
    wrong = []

    def work(number):
        for _ in range(5):
            if not torch.equal(sp.attribute(net, images[number], 3, "deep_lift").map, serial[number]):
                wrong.append(number)
            if not torch.equal(sp.backprop(net, images[number], 3, "gradient"), plain[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: F.relu(x).flatten(1) if x.sum() > 1 else F.silu(x).flatten(1), "relu on the image .* silu on the"),
        (lambda x: x.flatten(1) * 2 if x.sum() > 1 else F.silu(x).flatten(1), "nothing on the image .* silu on the"),
        (lambda x: F.silu(x).flatten(1) if x.sum() > 1 else x.flatten(1), "silu on the image .* nothing on the"),
    ],
)
def test_another_path_for_the_reference_is_said(forward, message):
    net = net_of(forward)
    with pytest.raises(sp.SpError, match=message):
        deep_lift(net, row(0.9, 0.9, 0.9, 0.9), row(0.0, 0.0, 0.0, 0.0), read_target(net, 0, 1))


def test_what_is_not_seen_shows_in_the_gap():
    net = net_of(lambda x: (x * (x > 0.5)).flatten(1).sum(1, keepdim=True))
    found = deep_lift(net, row(0.9, 0.2, 0.1, 0.3), row(0.4, 0.4, 0.0, 0.0), read_target(net, 0, 1))
    assert float(found.expected) == pytest.approx(0.9)
    assert abs(float(found.gap)) > 0.1


def test_no_path_from_the_image_is_said():
    net = net_of(lambda x: torch.ones(len(x), 3, dtype=x.dtype))
    with pytest.raises(sp.SpError, match="no path"):
        deep_lift(net, row(0.9, 0.2, 0.1, 0.3), row(0.0, 0.0, 0.0, 0.0), read_target(net, 0, 1))


def test_gauss_legendre_is_exact_for_polynomials():
    places, shares = gauss_legendre(4)
    for degree in range(8):
        assert sum(s * p**degree for p, s in zip(places, shares, strict=True)) == pytest.approx(1 / (degree + 1))
