"""Counts against what torchvision publishes, against loops, and against the definition."""

import json

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sp_core.cli import main
from sp_core.counts import CONVENTIONS, complexity, parameter_count
from sp_core.errors import SpError
from sp_core.network import Network


def test_a_convolution_by_hand():
    # 16 filters of 4 × 5 × 5 at each of 10 × 12 positions; those of the grouped one see a quarter of the channels.
    module = nn.Sequential(nn.Conv2d(4, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=4))
    answer = complexity(Network(module, input_size=(4, 20, 24)))
    first, second = 16 * 4 * 5 * 5 * 10 * 12, 8 * 4 * 3 * 3 * 8 * 10
    assert (answer.macs, answer.status, answer.input_size) == (first + second, "complete", (4, 20, 24))
    assert [answer.per_layer[name].macs for name in "0123"] == [first, 0, 0, second]
    assert [answer.per_layer[name].parameters for name in "0123"] == [1616, 32, 0, 296]
    assert (answer.parameters, answer.buffers) == (1616 + 32 + 296, 33)


def test_functional_spellings_and_attention_count_and_containers_sum_their_parts():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(6, 3, 3, 3))
            self.inner = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2, bias=False))

        def forward(self, x):
            x = F.conv2d(x, self.weight).flatten(2).transpose(1, 2)  # [n, 36, 6]
            x = x @ x.transpose(1, 2) @ x
            return self.inner(x)

    answer = complexity(Network(nn.Sequential(Odd()), input_size=(3, 8, 8)))
    conv, products, linears = 6 * 27 * 36, 2 * 36 * 36 * 6, 36 * (36 + 12)
    assert answer.macs == conv + products + linears
    assert answer.per_layer["0.inner"].macs == linears
    assert answer.per_layer["0"].macs == answer.macs
    assert answer.per_layer["0"].parameters == answer.parameters == 6 * 27 + 42 + 12


def test_shared_weights_count_once_but_run_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)
            self.tied = nn.Conv2d(3, 3, 1, bias=False)
            self.tied.weight = self.conv.weight

        def forward(self, x):
            return self.tied(self.conv(self.conv(x)))

    answer = complexity(Network(Twice(), input_size=(3, 5, 5)))
    assert (answer.parameters, answer.macs) == (9, 3 * 9 * 25)
    assert [answer.per_layer[name].parameters for name in ("conv", "conv#2")] == [9, 0]
    assert parameter_count(Twice()) == 9


def test_what_cannot_be_counted_is_named():
    class Warp(nn.Module):
        def forward(self, x):
            grid = F.affine_grid(torch.eye(2, 3, device=x.device)[None], list(x.shape), align_corners=False)
            return F.grid_sample(x, grid, align_corners=False)

    answer = complexity(Network(nn.Sequential(nn.Conv2d(3, 3, 1), Warp()), input_size=(3, 6, 6)))
    assert answer.status == "partial"
    assert answer.skipped == ("grid_sampler_2d (×1)",)


def test_a_network_that_looks_at_values_is_counted_too():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x) if float(x.sum()) <= 0 else x

    assert complexity(Network(Looks(), input_size=(3, 4, 4))).macs == 96


# reference: torchvision 0.29, counted by fvcore's and torch's counters alike.
EXACT = {
    "alexnet": (61_100_840, 714_188_480),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet50": (25_557_032, 4_089_184_256),
    "vgg11": (132_863_336, 7_609_090_048),
    "mobilenet_v2": (3_504_872, 300_774_272),
}


def of_torchvision(name, size=224):
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    with torch.device("meta"):
        module = getattr(torchvision.models, name)(weights=None, **options)
    return Network(module.eval(), name=name, input_size=(3, size, size))


@pytest.mark.parametrize("name", EXACT)
def test_exact_numbers(name):
    answer = complexity(of_torchvision(name))
    assert (answer.parameters, answer.macs) == EXACT[name]


def published():
    for name in torchvision.models.list_models(module=torchvision.models):
        if name.startswith(("vit", "swin", "maxvit", "regnet", "googlenet", "inception")):
            continue  # no CNNs; RegNets cannot be built without arithmetic; the inceptions drop auxiliary heads
        if name in {"efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_v2_m"}:
            continue  # only larger than their neighbours
        yield name, torchvision.models.get_model_weights(name).DEFAULT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights"), list(published()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_agrees_with_what_torchvision_publishes(name, weights):
    # `_ops` is published in 10⁹ MACs with three decimals, for the crop that the weights are evaluated with.
    size = weights.transforms().crop_size[0]
    answer = complexity(of_torchvision(name, size))
    assert answer.parameters == weights.meta["num_params"]
    assert answer.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=6e-4)
    assert answer.status == "complete"


def test_agrees_with_the_counter_of_torch():
    net = of_torchvision("squeezenet1_0", 64)
    with FlopCounterMode(display=False) as flops:
        net.clone()(torch.empty(1, 3, 64, 64, device="meta"))
    assert complexity(net).macs == flops.get_total_flops() // 2


def test_conventions_by_hand():
    """A convolution with a bias at 8 × 8, ReLU, BatchNorm, 2 × 2 pooling, a linear layer."""
    parts = [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(80, 7),
    ]
    net = Network(nn.Sequential(*parts), input_size=(3, 8, 8))
    macs = 64 * 5 * 27 + 80 * 7
    torchs, ioannou, author = (complexity(net, convention) for convention in CONVENTIONS)
    assert (torchs.macs, ioannou.macs, author.macs) == (macs, macs + 5 + 7, macs + 7 + 5 * 64 + 5 * 16 * 4)
    assert (torchs.parameters, ioannou.parameters, author.parameters) == (140 + 10 + 567, 140 + 567, 717)
    assert [ioannou.per_layer[name].macs for name in "05"] == [64 * 135 + 5, 567]
    assert [author.per_layer[name].macs for name in "0135"] == [64 * 135, 320, 320, 567]
    assert ioannou.per_layer["2"].parameters == 0 and torchs.per_layer["2"].parameters == 10
    assert [answer.convention for answer in (torchs, ioannou, author)] == list(CONVENTIONS)


def test_functional_spellings_follow_the_convention():
    class Spelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 1, bias=False), nn.Linear(4, 2, bias=False)

        def forward(self, x):
            return self.linear(F.avg_pool2d(F.relu_(self.conv(x)), (3, 2), 1).mean((2, 3)))

    net = Network(Spelled(), input_size=(3, 6, 6))
    macs = 36 * 12 + 8
    assert complexity(net, "ioannou").macs == macs, "without a bias nothing is added"
    assert complexity(net, "author").macs == macs + 4 * 36 + 4 * (4 * 5) * 6 + 4 * (4 * 5)


def test_a_convention_that_does_not_exist_is_named():
    with pytest.raises(SpError, match="'caffe' is not a convention of counting; choose one of: torch, ioannou, author"):
        complexity(Network(nn.Conv2d(3, 3, 1), input_size=(3, 4, 4)), "caffe")


def test_the_command_counts_by_a_convention(capsys):
    assert main(["complexity", "zoo:nin-cifar-root4", "--convention", "ioannou", "--leaves"]) == 0
    out = capsys.readouterr().out
    assert "455,498 parameters" in out and "123,397,514 MACs (Ioannou)" in out
    assert main(["complexity", "zoo:condensenet-cifar-50", "--convention", "author", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["macs"], answer["convention"]) == (28_639_514, "author")
