"""Facts of filters against slow second opinions, tiles pixel by pixel, and what is said where there is nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sp_core import filters
from sp_core.errors import SpError
from sp_core.filters import FilterBank, facts, tiles
from sp_core.gabor import gabor
from sp_core.network import Network


def _network(*layers: nn.Module, size=(3, 16, 16), name="tiny") -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(*layers), name=name, input_size=size)


def _bank(weight: torch.Tensor, view="rgb") -> FilterBank:
    return FilterBank("conv1", "Conv2d", weight.float(), 1, view, True)


def _rgb(pattern: torch.Tensor, colour: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.float64)[:, None, None] * pattern


# --- which layer, which view ----------------------------------------------------------------------------------------


def test_first_layer_reads_the_image():
    net = _network(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 3, 1))
    assert filters.convolutions(net) == ("0", "2", "3")
    assert filters.first_layer(net) == "0"
    assert [filters.bank(net, name).view for name in ("0", "2", "3")] == ["rgb", "grey", "tiles"]
    assert filters.bank(net).reads_image and not filters.bank(net, "3").reads_image


def test_deeper_layer_with_three_channels_has_no_colours():
    net = _network(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 5, 3))
    assert filters.bank(net, "1").view == "tiles"


@pytest.mark.parametrize(("channels", "view"), [(1, "grey"), (2, "tiles"), (6, "tiles")])
def test_other_numbers_of_image_channels(channels, view):
    assert filters.bank(_network(nn.Conv2d(channels, 4, 3), size=(channels, 8, 8))).view == view


def test_conv1d_is_lines():
    net = _network(nn.Flatten(2), nn.Conv1d(3, 4, 5), size=(3, 8, 8))
    bank = filters.bank(net)
    assert (bank.view, bank.count) == ("lines", 4)
    assert facts(bank).rank1.isnan().all() and facts(bank).frequency.isfinite().all()


def test_network_without_convolution_is_told_so():
    net = _network(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), name="a perceptron")
    with pytest.raises(
        SpError, match=r"a perceptron has no convolution, so it has no filters to show .*Flatten, Linear"
    ):
        filters.bank(net)


def test_a_layer_that_is_no_convolution_is_refused_by_name():
    net = _network(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(SpError, match="'1' is not a convolution"):
        filters.bank(net, "1")
    with pytest.raises(SpError, match="'conv9' is not one of the 2 layers"):
        filters.bank(net, "conv9")


def test_weights_that_are_not_numbers_are_refused():
    module = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        module.weight[1, 2, 0, 0] = math.nan
    with pytest.raises(SpError, match="1 of the 108 weights of 0 are NaN"):
        filters.bank(_network(module))


# --- tiles ----------------------------------------------------------------------------------------------------------


def test_own_scaling_spans_every_filter_jointly_over_colours():
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    got = tiles(_bank(weight))
    assert got.shape == (5, 4, 4, 3) and got.dtype == np.uint8
    for i in range(5):
        low, high = weight[i].min(), weight[i].max()
        expected = ((weight[i].double() - low) / (high - low) * 255).permute(1, 2, 0).numpy()
        assert np.abs(got[i] - expected).max() <= 0.51
        assert got[i].min() == 0 and got[i].max() == 255


def test_common_scaling_keeps_zero_grey_and_filters_comparable():
    weight = torch.zeros(2, 3, 3, 3)
    weight[0, 0, 0, 0], weight[1, 1, 1, 1] = -2.0, 1.0
    got = tiles(_bank(weight), scaling="layer")
    assert got[0, 0, 0].tolist() == [1, 128, 128]
    assert got[1, 1, 1].tolist() == [128, 192, 128]
    assert (tiles(_bank(weight), "layer", slice(1, 2)) == got[1:]).all()


def test_constant_filter_is_mid_grey():
    assert (tiles(_bank(torch.full((1, 3, 3, 3), 7.0))) == 128).all()


def test_tiles_say_no():
    with pytest.raises(SpError, match="must be 'filter' or 'layer'; got 'loud'"):
        tiles(_bank(torch.ones(1, 3, 3, 3)), "loud")
    with pytest.raises(SpError, match="have no colours"):
        tiles(_bank(torch.ones(1, 8, 3, 3), "tiles"))


# --- facts ----------------------------------------------------------------------------------------------------------


def test_orientation_and_frequency_of_synthetic_gabors():
    wanted = [(angle, frequency) for angle in range(0, 180, 15) for frequency in (0.15, 0.2, 0.3, 0.4)]
    patterns = [gabor(11, 11, orientation=a, frequency=f, phase=35, sigma=2.2) for a, f in wanted]
    row = facts(_bank(torch.stack([_rgb(p, (1, 1, 1)) for p in patterns])))
    angle, frequency = torch.tensor(wanted, dtype=torch.float64).unbind(1)
    assert ((row.orientation - angle + 90) % 180 - 90).abs().max() < 0.5
    assert (row.frequency - frequency).abs().max() < 0.002
    assert ((row.gabor[:, 0] - angle + 90) % 180 - 90).abs().max() < 0.1
    assert (row.gabor[:, 1] - frequency).abs().max() < 1e-3
    assert row.gabor[:, 7].min() > 0.9999


def test_peak_agrees_with_a_fine_fourier_transform():
    weight = torch.randn(12, 3, 7, 7, generator=torch.Generator().manual_seed(3))
    row = facts(_bank(weight))
    size = 512
    power = torch.fft.fft2(weight.double(), s=(size, size)).abs().square().sum(1).flatten(1)
    best = power.argmax(1)
    fy, fx = (torch.fft.fftfreq(size, dtype=torch.float64)[i] for i in (best // size, best % size))
    angle = torch.rad2deg(torch.atan2(-fy, fx)) % 180  # rows run down the screen
    assert (row.frequency - torch.hypot(fx, fy)).abs().max() < 0.006
    blob = row.frequency < 0.5 / 7
    assert row.orientation[blob].isnan().all()
    known = ~blob & (row.frequency < 0.7)  # in the corner, 45° and 135° are the same chequerboard
    assert known.sum() > 8
    assert ((row.orientation - angle + 90) % 180 - 90)[known].abs().max() < 1.5


def test_bandwidth_of_a_gabor():
    # The amplitude spectrum of a Gaussian envelope falls to half at f0 ± sqrt(2 ln 2) / (2π σ).
    sigma, frequency = 3.0, 0.2
    half = math.sqrt(2 * math.log(2)) / (2 * math.pi * sigma)
    expected = math.log2((frequency + half) / (frequency - half))
    pattern = gabor(25, 25, orientation=30, frequency=frequency, sigma=sigma)
    assert facts(_bank(_rgb(pattern, (1, 1, 1))[None])).bandwidth.item() == pytest.approx(expected, abs=0.02)


def test_blob_has_no_orientation():
    blob = gabor(9, 9, orientation=0, frequency=0.0, sigma=2.0)
    row = facts(_bank(_rgb(blob, (1, 1, 1))[None]))
    assert row.orientation.isnan().all() and row.frequency.item() < 0.05 and row.bandwidth.isnan().all()


def test_colourfulness():
    pattern = gabor(7, 7, orientation=40, frequency=0.2)
    weight = torch.stack([_rgb(pattern, colour) for colour in ((1, 1, 1), (1, -1, 0), (-1, -1, 2), (1, 0, 0))])
    row = facts(_bank(weight))
    # Red alone: a third of its energy is luminance.
    assert torch.allclose(row.colourfulness, torch.tensor([0.0, 1.0, 1.0, 2 / 3], dtype=torch.float64), atol=1e-6)
    assert facts(_bank(weight, "tiles")).colourfulness.isnan().all()
    energy = filters.opponent(weight).square().sum((1, 2, 3))
    assert torch.allclose(energy, weight.square().sum((1, 2, 3)))  # the axes are orthonormal


def test_rank_1_energy_against_svd():
    weight = torch.randn(6, 3, 5, 7, generator=torch.Generator().manual_seed(5)).double()
    values = torch.linalg.svdvals(weight).square()
    expected = values[..., 0].sum(1) / values.sum((1, 2))
    assert torch.allclose(facts(_bank(weight)).rank1, expected, atol=1e-6)
    separable = torch.einsum("ci,cj->cij", torch.randn(3, 5), torch.randn(3, 5))[None]
    assert facts(_bank(separable)).rank1.item() == pytest.approx(1, abs=1e-6)


def test_main_pattern_keeps_the_energy_it_says():
    for channels in (3, 80):  # fewer and more channels than kernel positions
        weight = torch.randn(4, channels, 5, 5, generator=torch.Generator().manual_seed(6)).double()
        row = facts(_bank(weight, "tiles"))
        values = torch.linalg.svdvals(weight.float().double().flatten(2)).square()
        assert torch.allclose(row.pattern_share, values[:, 0] / values.sum(1), atol=1e-6)
        assert torch.allclose(row.pattern.square().sum((1, 2)), values[:, 0], rtol=1e-5)


def test_dead_and_weak_filters():
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    weight = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]
    weight = weight * torch.tensor([1.0, 0.05, 0.001, 0.0])[:, None, None, None]
    row = facts(_bank(weight))
    assert row.dead.tolist() == [False, False, True, True] and row.weak.tolist() == [False, True, False, False]
    assert row.rows()[3]["orientation"] is None and row.rows()[3]["gabor_r2"] is None
    assert row.rows()[0]["norm"] == pytest.approx(1, abs=1e-6)
    assert row.order("frequency")[-2:].tolist() == [2, 3]  # dead ones last, whatever their noise says


def test_order():
    patterns = [gabor(9, 9, orientation=a, frequency=f) for a, f in ((80, 0.3), (10, 0.2), (40, 0.25))]
    row = facts(_bank(torch.stack([s * _rgb(p, (1, 1, 1)) for s, p in zip((1, 3, 2), patterns, strict=True)])))
    assert row.order().tolist() == [0, 1, 2]
    assert row.order("orientation").tolist() == [1, 2, 0]
    assert row.order("frequency").tolist() == [1, 2, 0]
    assert row.order("norm").tolist() == [1, 2, 0]
    with pytest.raises(SpError, match=r"sorted by one of index, orientation.*got 'taste'"):
        row.order("taste")


def test_one_by_one_kernels_are_said_to_have_no_pattern():
    row = facts(_bank(torch.randn(4, 8, 1, 1), "tiles"))
    assert (
        row.gabor.isnan().all() and row.orientation.isnan().all() and torch.allclose(row.rank1, torch.ones(4).double())
    )


# --- Fourier picture and response -----------------------------------------------------------------------------------


def test_fourier_magnitude_has_its_peak_where_the_facts_say():
    pattern = gabor(11, 11, orientation=30, frequency=0.25, sigma=2.5)
    magnitude = filters.fourier(_bank(_rgb(pattern, (1, 1, 1))[None]), 0)
    assert magnitude.shape == (64, 64)
    fx, fy = 0.25 * math.cos(math.radians(30)), 0.25 * math.sin(math.radians(30))
    row, column = round(32 - 64 * fy), round(32 + 64 * fx)  # y is up
    peak = magnitude.argmax().item()
    both = {(row, column), (64 - row, 64 - column)}
    assert min(abs(peak // 64 - r) + abs(peak % 64 - c) for r, c in both) <= 1


def test_response_is_the_convolution():
    net = _network(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.conv2d(image, net.module[0].weight, net.module[0].bias, stride=2)[0, 2]
    assert torch.allclose(filters.response(net, "0", 2, image), expected, atol=1e-6)
    with pytest.raises(SpError, match="0 has filters 0 to 3; got 4"):
        filters.response(net, "0", 4, image)


def test_the_network_is_left_as_it_was():
    net = _network(nn.Conv2d(3, 4, 5), nn.ReLU())
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    facts(filters.bank(net))
    tiles(filters.bank(net))
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert not any(part._forward_hooks for part in net.module.modules())
