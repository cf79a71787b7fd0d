"""Rebuilt layers: exact at full rank, the error that was promised, and the small layers do what the weight says."""

import copy
import math

import pytest
import torch
from torch import nn

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights import SCHEMES, available, curve, effect, factor, replaced, site, timing, trial_steps
from sp_core.weights.low_rank import Site
from sp_core.weights.schemes import compose

CONVS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "first": {"kernel_size": 7, "stride": 4, "padding": 2},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": (2, 1)},
    "uneven": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2), "bias": False},
    "same": {"kernel_size": 3, "padding": "same"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
}


def _network(*layers: nn.Module, size=(3, 17, 15), classes=None) -> Network:
    torch.manual_seed(0)
    for layer in layers:  # the layers were made before the seed was set
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return Network(nn.Sequential(*layers), name="tiny", input_size=size, classes=classes)


def _place(inputs: int, outs: int, **options) -> Site:
    return site(_network(nn.Conv2d(3, inputs, 1), nn.Conv2d(inputs, outs, **options)), "1")


def _conv(place: Site, weight: torch.Tensor) -> nn.Module:
    module = copy.deepcopy(place.module).double()
    module.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return module


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("name", list(CONVS))
def test_small_layers_are_the_convolution_with_the_rebuilt_weight(scheme, name):
    place = _place(6, 10, **CONVS[name])
    image = torch.randn(2, *place.input_shape, dtype=torch.float64)
    highest = SCHEMES[scheme].ranks(tuple(place.weight.shape))
    for rank in {1, 2, highest // 2, highest}:
        row = factor(place, scheme, rank)
        expected = _conv(place, row.weight)(image)
        got = row.layers.double()(image)
        assert got.shape[1:] == place.output_shape
        assert (got - expected).abs().max() < 1e-5
        assert row.layers[0].weight.requires_grad is False


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize(("inputs", "outs", "kernel"), [(3, 16, 5), (8, 4, 3), (1, 6, 3), (5, 5, 3), (7, 2, (3, 1))])
def test_exact_at_full_rank_and_the_promised_error_below(scheme, inputs, outs, kernel):
    place = _place(inputs, outs, kernel_size=kernel)
    line = curve(place, scheme)
    shape = tuple(place.weight.shape)
    assert len(line.errors) == SCHEMES[scheme].ranks(shape) == len(line.macs) == len(line.parameters)
    assert line.errors[-1] == 0
    assert (line.errors[:-1] >= line.errors[1:] - 1e-12).all()
    for rank in range(1, len(line.errors) + 1):
        row = factor(place, scheme, rank)
        assert row.error == pytest.approx(line.errors[rank - 1].item(), abs=1e-7)
        assert (row.weight - place.weight).norm() / place.weight.norm() == pytest.approx(row.error)
        assert (row.parameters, row.macs) == (line.parameters[rank - 1], line.macs[rank - 1])
    assert row.error < 1e-7
    assert line.rank_within(0.0) == len(line.errors) and line.rank_within(1.0) == 1


def test_svd_and_separable_are_the_best_at_their_rank():
    place = _place(6, 10, kernel_size=3)
    for scheme, matrix in (
        ("svd", place.weight.flatten(1)),
        # Jaderberg's scheme 2: rows are (channel, kernel row), columns are (kernel column, filter)
        ("separable", torch.stack([place.weight[:, c, i, :].T.flatten() for c in range(6) for i in range(3)])),
    ):
        energy = torch.linalg.svdvals(matrix).square()
        for rank in (1, 3, 7):
            expected = math.sqrt(energy[rank:].sum() / energy.sum())  # Eckart and Young
            assert factor(place, scheme, rank).error == pytest.approx(expected, abs=1e-9)


def test_basis_uses_the_same_separable_kernels_for_every_channel():
    place = _place(4, 6, kernel_size=3)
    row = factor(place, "basis", 3)
    column, line, mixing = row.kernels
    kernels = (column * line)[:, 0].view(4, 3, 3, 3)
    assert torch.equal(kernels[0], kernels[3])
    for kernel in kernels[0]:
        assert torch.linalg.svdvals(kernel)[1] < 1e-12
    by_hand = torch.einsum("ncm,mhw->nchw", mixing.view(6, 4, 3), kernels[0])
    assert torch.allclose(by_hand, row.weight)


def test_cost_is_that_of_the_layers():
    from torch.utils.flop_counter import FlopCounterMode

    place = _place(6, 10, kernel_size=5, stride=2, padding=1)
    image = torch.zeros(1, *place.input_shape)
    for scheme in SCHEMES:
        row = factor(place, scheme, 3)
        counter = FlopCounterMode(display=False)
        with counter:
            row.layers(image)
        assert row.macs == counter.get_total_flops() // 2, scheme
        stored = sum(part.weight.numel() for part in row.layers)
        shared = 2 * (6 - 1) * 3 * 5 if scheme == "basis" else 0  # a copy for each channel, counted once
        assert row.parameters == stored - shared, scheme
    assert place.macs == place.weight.numel() * math.prod(place.output_shape[1:])
    n, c, d = 10, 6, 5  # Jaderberg: K (C + N) d weights
    assert factor(place, "separable", 4).parameters == 4 * (c + n) * d


def test_cross_shaped_kernels_have_separable_rank_two():
    # Ioannou's ½ 1×3 ‖ ½ 3×1 with one channel each: corners are zero.
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, :], weight[0, 0, :, 1] = torch.tensor([1.0, 2, 3]).double(), torch.tensor([4.0, 2, 5]).double()
    place = _place(1, 1, kernel_size=3)
    object.__setattr__(place, "weight", weight)
    line = curve(place, "separable")
    assert line.errors[0] > 0.1 and line.errors[1] < 1e-7


def test_linear_layer_and_pointwise_convolution():
    net = _network(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 255, 6))
    for name in ("0", "2"):
        place = site(net, name)
        assert available(place) == ("svd",)
        row = factor(place, "svd", 2)
        data = torch.randn(3, *place.input_shape)
        module = net.module.get_submodule(name)
        expected = copy.deepcopy(module)
        expected.weight = nn.Parameter(row.weight.float().view_as(module.weight))
        assert torch.allclose(row.layers(data), expected(data), atol=1e-5)
        assert row.parameters == 2 * sum(module.weight.shape[:2])
    assert site(net, "2").macs == 8 * 255 * 6


def test_what_cannot_be_rebuilt_is_said():
    net = _network(nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(6, 4, 2), nn.Conv2d(4, 4, 3))
    with pytest.raises(SpError, match="0 has 3 groups: its matrix is block-diagonal"):
        site(net, "0")
    with pytest.raises(SpError, match="1 is a ConvTranspose2d; only Conv2d and Linear"):
        site(net, "1")
    with pytest.raises(SpError, match="'9' is not one of the 3 weights of tiny"):
        site(net, "9")
    place = site(net, "2")
    with pytest.raises(SpError, match="under 'basis' is from 1 to 9; got 10"):
        factor(place, "basis", 10)
    with pytest.raises(SpError, match="one of svd, separable, basis, tucker; got 'magic'"):
        curve(place, "magic")


def test_compose_is_one_convolution_after_another():
    first, second = torch.randn(4, 3, 3, 1, dtype=torch.float64), torch.randn(5, 4, 1, 3, dtype=torch.float64)
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    two = nn.functional.conv2d(nn.functional.conv2d(image, first), second)
    assert torch.allclose(nn.functional.conv2d(image, compose([first, second])), two)


# --- the network with the layer replaced ----------------------------------------------------------------------------


class _Stripes:
    """Six images of two classes, the last without a label."""

    name, classes, fingerprint = "stripes", ("across", "down"), "stripes-1"

    def __len__(self):
        return 6

    def batch(self, start, stop, network=None):
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return images[start:stop], torch.tensor([0, 1, 0, 1, 0, -1])[start:stop]


def _classifier(classes=("across", "down")) -> Network:
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 2))
    return _network(*layers, size=(3, 8, 8), classes=classes)


def test_full_rank_changes_nothing_and_the_network_is_untouched():
    net = _classifier()
    before = net.fingerprint, net.module[0].weight
    changed = replaced(net, "0", factor(site(net, "0"), "separable", 9).layers)
    image = torch.rand(1, 3, 8, 8)
    same = effect(net, changed, image)
    assert same.before == same.after and same.change < 1e-5
    assert same.before_chance == pytest.approx(same.after_chance, abs=1e-5)
    last = list(trial_steps(net, changed, _Stripes(), batch=4))
    assert [step.seen for step in last] == [4, 6] and last[-1].agreement == 1.0
    assert last[-1].labelled == 5 and last[-1].before == last[-1].after
    assert net.module[0].weight is before[1] and isinstance(net.module[0], nn.Conv2d)
    assert Network(net.module, name="x", input_size=(3, 8, 8)).fingerprint == before[0]


def test_accuracy_against_a_loop():
    net = _classifier()
    changed = replaced(net, "0", factor(site(net, "0"), "svd", 1).layers)
    images, labels = _Stripes().batch(0, 6)
    last = list(trial_steps(net, changed, _Stripes(), batch=2))[-1]
    with torch.no_grad():
        right = [
            int(net.module(image[None]).argmax()) == label for image, label in zip(images, labels.tolist(), strict=True)
        ]
        still = [
            int(changed(image[None]).argmax()) == label for image, label in zip(images, labels.tolist(), strict=True)
        ]
    assert last.before == pytest.approx(sum(right) / 5) and last.after == pytest.approx(sum(still) / 5)
    image = images[:1]
    one = effect(net, changed, image)
    with torch.no_grad():
        old, new = net.module(image)[0], changed(image)[0]
    assert one.before_chance == pytest.approx(float(old.softmax(0).max()), abs=1e-6)
    assert one.after_chance == pytest.approx(float(new.softmax(0)[one.before]), abs=1e-6)
    assert one.change == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-4)


def test_labels_of_other_classes_do_not_count():
    net = _classifier(classes=None)
    last = list(trial_steps(net, net.clone(), _Stripes()))[-1]
    assert last.agreement == 1 and last.labelled == 0 and math.isnan(last.before)


def test_timing_runs_both():
    calls = []

    class Counted(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return x

    row = timing(Counted("a"), Counted("b"), torch.zeros(1, 2), repeats=3)
    assert calls == ["a", "b"] * 5 and row.original >= 0 and row.factored >= 0 and row.repeats == 3
