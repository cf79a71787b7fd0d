"""Singular values against the SVD, ranks against hand-made spectra, random bands against drawn matrices."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sp_core as sp
from sp_core.cli import main
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights import (
    MATRICES,
    band_of,
    effective_rank,
    energy_rank,
    random_band,
    read_spectra,
    spectra_so_far,
    stable_rank,
    weights,
)
from sp_core.weights.random_spectra import _marchenko_pastur
from sp_core.weights.spectra import gram_values, spectrum_steps


def _network(*layers: nn.Module, size=(3, 8, 8)) -> Network:
    return Network(nn.Sequential(*layers), name="tiny", input_size=size)


def _close(values: torch.Tensor, matrix: torch.Tensor) -> None:
    expected = torch.linalg.svdvals(matrix if matrix.is_complex() else matrix.double())
    assert values.shape == expected.shape and values.dtype == torch.float64
    assert (values - expected).abs().max() <= 2e-5 * expected.max()


def test_every_weight_equals_its_svd():
    net = _network(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.Conv2d(8, 8, (1, 5), padding=(0, 2)),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(512, 7),
    )
    values = sp.singular_values(net)
    assert list(values) == ["0.weight", "1.weight", "2.weight", "5.weight"]
    for name, own in values.items():
        _close(own, net.module.state_dict()[name].flatten(1))
        assert (own[:-1] >= own[1:]).all()


def test_positions_equal_one_svd_a_position():
    net = _network(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 4))
    values = sp.singular_values(net, matrix="positions")
    weight = net.module[0].weight.double()
    for index in range(9):
        _close(values["0.weight"][index], weight[:, :, index // 3, index % 3])
    _close(values["2.weight"][0], net.module[2].weight)
    pooled = {row.layer: row for row in read_spectra(net, "positions")}
    assert torch.equal(pooled["0"].values, values["0.weight"].flatten().sort(descending=True).values)
    assert (pooled["0"].matrix, pooled["0"].block, pooled["2"].matrix) == ("positions", (5, 3), "flat")
    with pytest.raises(SpError, match="must be one of flat, positions, operator; got 'sideways'"):
        sp.singular_values(net, matrix="sideways")


def _dense(conv: nn.Module, size: tuple[int, ...]) -> torch.Tensor:
    """The circular convolution as a matrix, one column a pixel, in float64: what a picture of one pixel becomes."""
    pixels = torch.eye(math.prod(size), dtype=torch.float64).view(-1, *size)
    reach = [gap * (taps - 1) for taps, gap in zip(conv.kernel_size, conv.dilation, strict=True)]
    padding = [side for extent in reversed(reach) for side in (0, extent)]
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(reach)]
    padded = F.pad(pixels, padding, mode="circular")
    weight = conv.weight.detach().double()
    return run(padded, weight, None, conv.stride, 0, conv.dilation, conv.groups).flatten(1).T


CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 5, 3, padding=1), (3, 6, 7)),
    "stride": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 8, 6)),
    "asymmetric, groups": (nn.Conv2d(4, 6, (3, 1), stride=(2, 3), padding=(1, 0), groups=2), (4, 8, 9)),
    "dilation": (nn.Conv2d(3, 4, 3, dilation=2, padding=2), (3, 5, 8)),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 5, 5)),
    "one axis": (nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 12)),
    "three axes": (nn.Conv3d(2, 3, 3, padding=1, stride=(1, 2, 1)), (2, 3, 4, 3)),
    "kernel as large as the map": (nn.Conv2d(2, 3, 4, padding="same"), (2, 4, 4)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_the_operator_equals_the_dense_matrix_of_the_circular_convolution(case):
    conv, size = CONVOLUTIONS[case]
    net = Network(_Row(conv, size), name="one", input_size=(1, 1, math.prod(size)))
    (row,) = read_spectra(net, "operator")
    dense = _dense(conv, size)
    expected = torch.linalg.svdvals(dense)
    assert (row.rows, row.columns, row.maps) == (*dense.shape, size[1:])
    assert row.values.shape == expected.shape
    assert (row.values - expected).abs().max() <= 2e-7 * expected[0]


class _Row(nn.Module):
    """A convolution over any number of axes as a network that takes flat pictures."""

    def __init__(self, conv: nn.Module, size: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.size = conv, size

    def forward(self, x):
        return self.conv(x.reshape(len(x), *self.size)).flatten(1)


def test_a_transposed_convolution_has_the_values_of_its_adjoint():
    up = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2)
    net = Network(nn.Sequential(up), name="up", input_size=(4, 5, 3))
    (row,) = read_spectra(net, "operator")
    down = nn.Conv2d(6, 4, 4, stride=2, groups=2)
    down.weight = up.weight
    expected = torch.linalg.svdvals(_dense(down, (6, 10, 6)))
    assert (row.rows, row.columns, row.maps) == (6 * 60, 4 * 15, (10, 6))
    assert (row.values - expected).abs().max() <= 2e-7 * expected[0]


def test_the_operator_of_a_1x1_convolution_is_its_matrix_at_every_pixel():
    net = _network(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 5))
    flat, operator = sp.singular_values(net), sp.singular_values(net, matrix="operator")
    assert torch.allclose(operator["0.weight"], flat["0.weight"].repeat_interleave(64), rtol=1e-9)
    assert torch.equal(operator["2.weight"], flat["2.weight"]), "a linear layer is one matrix in any case"


def test_the_operator_is_made_in_pieces_and_on_smaller_maps(monkeypatch):
    net = _network(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1), size=(3, 20, 12))
    whole = read_spectra(net, "operator")
    monkeypatch.setattr("sp_core.weights.operator.CHUNK", 100)
    assert all(torch.allclose(a.values, b.values) for a, b in zip(whole, read_spectra(net, "operator"), strict=True))
    *_, small = spectra_so_far(net, "operator", 8)
    assert [row.maps for row in whole] == [(20, 12), (10, 6)] and [row.maps for row in small] == [(8, 8), (8, 6)]
    for one, other in zip(whole, small, strict=True):  # a sample of the same curve
        assert other.values[0] <= one.values[0] * 1.02 and other.values[0] >= one.values[0] * 0.8


def test_layers_without_maps_have_no_operator():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x)

    net = Network(Spare(), name="spare", input_size=(3, 6, 6))
    assert list(sp.singular_values(net, matrix="operator")) == ["conv.weight"]
    assert list(sp.singular_values(net, matrix="positions")) == ["conv.weight", "unused.weight"]


def test_the_verb_reads_the_matrix_that_is_meant(capsys):
    asked = ["singular-values", "bundled:textures-vgg", "--layer", "features.0", "--matrix", "operator", "--largest"]
    assert main([*asked, "8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (row,) = answer["weights"]
    assert (answer["matrix"], row["matrix"], row["maps"]) == ("operator", "operator", [8, 8])
    expected = sp.singular_values(sp.load("bundled:textures-vgg"), "operator", largest=8)["features.0.weight"]
    assert row["values"] == pytest.approx(expected.tolist())
    assert main([*asked, "0"]) == 2
    assert "--largest must be a side in pixels from 1 to 4096; got 0." in capsys.readouterr().err


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_random_weight_lies_in_its_band_whichever_matrix_is_meant(matrix):
    torch.manual_seed(5)
    convs = [nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 12, 3, groups=4)]
    for conv in convs:
        nn.init.normal_(conv.weight)
    for row in read_spectra(_network(*convs, size=(8, 24, 24)), matrix):
        band = band_of(row)
        places = (torch.arange(len(band.mean)) + 0.5) / len(band.mean)
        at = (places * len(row.values)).long()
        off = (row.values[at] / row.values.norm() - band.mean).abs() / band.mean[0]
        assert off.median() < 0.05 and off.max() < 0.2, row.layer


@pytest.mark.parametrize(("rows", "columns", "rank"), [(40, 90, 7), (90, 40, 7), (30, 30, 1), (64, 64, 64)])
def test_rank_r_matrix_has_r_values(rows, columns, rank):
    matrix = torch.randn(rows, rank, dtype=torch.float64) @ torch.randn(rank, columns, dtype=torch.float64)
    values = gram_values(matrix)
    _close(values, matrix)
    assert int((values > 1e-6 * values[0]).sum()) == rank
    assert energy_rank(values, 1 - 1e-12) <= rank


def test_long_matrices_are_added_up_in_pieces(monkeypatch):
    matrix = torch.randn(3, 6, 1000)
    whole = gram_values(matrix)
    monkeypatch.setattr("sp_core.weights.spectra._CHUNK", 500)
    assert torch.allclose(gram_values(matrix), whole)
    for values, one in zip(whole, matrix, strict=True):
        _close(values, one)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("rows", [7, 8, 9, 29])
def test_half_of_the_gram_matrix_is_enough(monkeypatch, rows, kind):
    monkeypatch.setattr("sp_core.weights.spectra._BAND", 8)
    matrix = torch.randn(2, rows, 31, dtype=kind)
    for values, one in zip(gram_values(matrix), matrix, strict=True):
        _close(values, one)
    matrix[1, rows - 1, 3] = math.nan
    assert gram_values(matrix).isnan().all(1).tolist() == [False, True]


def test_not_a_number_is_nan_and_stays_in_its_own_matrix():
    matrix = torch.randn(2, 4, 6)
    matrix[0, 1, 1] = math.inf
    values = gram_values(matrix)
    assert values[0].isnan().all() and values[1].isfinite().all()
    assert math.isnan(effective_rank(values[0])) and energy_rank(values[0], 0.9) == -1


def test_equal_shapes_are_done_together_and_in_order():
    net = _network(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1), nn.Conv2d(3, 3, 3, padding=1))
    assert [row.name for row in read_spectra(net)] == ["0.weight", "1.weight", "2.weight", "3.weight"]
    assert {row.name for row in spectrum_steps(net, layers=("2",))} == {"2.weight"}


def test_what_counts_as_a_weight_matrix():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm([3, 8, 8])
            self.up = nn.ConvTranspose2d(3, 6, 2, stride=2)
            self.tied = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 1))
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            return self.tied(self.up(self.norm(x))).mean((2, 3))

    net = Network(Odd(), name="odd", input_size=(3, 8, 8))
    rows = {row.layer: row for row in weights(net)}
    assert list(rows) == ["up", "tied", "unused"]
    assert tuple(rows["up"].tensor.shape) == (6, 3, 2, 2)  # out first
    assert [row.runs for row in rows.values()] == [True, True, False]
    assert torch.allclose(rows["tied"].tensor, net.module.tied.weight)
    with pytest.raises(SpError, match="bare has no convolution and no linear layer"):
        weights(Network(nn.Sequential(nn.ReLU()), name="bare", input_size=(3, 8, 8)))


def test_ranks_of_known_spectra():
    flat, spike = torch.ones(8), torch.tensor([1.0, 0.0, 0.0])
    assert effective_rank(flat) == pytest.approx(8) and stable_rank(flat) == pytest.approx(8)
    assert effective_rank(spike) == pytest.approx(1) and stable_rank(spike) == 1
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert [energy_rank(flat, share) for share in (0.1, 0.5, 0.51, 0.9, 1.0)] == [1, 4, 5, 8, 8]
    zero = torch.zeros(3)
    assert (effective_rank(zero), stable_rank(zero), energy_rank(zero, 0.9)) == (0.0, 0.0, 0)
    with pytest.raises(SpError, match="above 0 and at most 1; got 90"):
        energy_rank(flat, 90)


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (20, 200), (50, 30)])
def test_random_band_is_that_of_gaussian_matrices(rows, columns):
    rng = torch.Generator().manual_seed(1)
    drawn = torch.linalg.svdvals(torch.randn(400, rows, columns, generator=rng, dtype=torch.float64))
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    band = random_band(rows, columns)
    # The band's mean is over 20 draws, so it is as far off as 20 draws may be: four standard errors.
    tolerance = 4 * drawn.std(0) / math.sqrt(20) + 1e-6
    assert ((band.mean - drawn.mean(0)).abs() <= tolerance).all()
    assert (band.low <= band.mean).all() and (band.mean <= band.high).all() and band.law == "draws"
    assert band.mean.square().sum().sqrt() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("side", "length"), [(400, 400), (300, 1500)])
def test_limit_law_agrees_with_draws_where_matrices_are_large(side, length):
    band, law = random_band(side, length), _marchenko_pastur(side, length)
    middle = slice(side // 50, -side // 50)  # at the edges finite matrices leave the law
    assert ((law - band.mean)[middle].abs() / band.mean[0]).max() < 0.01
    assert torch.equal(random_band(side, length).mean, band.mean)


def test_trained_like_weight_leaves_the_band_and_a_random_one_does_not():
    torch.manual_seed(3)
    net = _network(nn.Conv2d(3, 64, 7), size=(3, 16, 16))
    row = read_spectra(net)[0]
    band = random_band(row.rows, row.columns)
    normal = row.values / row.frobenius
    assert ((normal - band.mean).abs() < 0.1 * band.mean[0]).all()
    low = torch.randn(64, 4) @ torch.randn(4, 147)
    assert (gram_values(low) / low.norm())[0] > 2 * band.high[0]


def test_network_is_left_as_it_was():
    net = _network(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    before = net.fingerprint
    read_spectra(net)
    assert sp.Network(net.module, name="again", input_size=(3, 8, 8)).fingerprint == before


@pytest.mark.slow
def test_real_squeezenet_against_svd(real_data):
    from torchvision.models import squeezenet1_0

    module = squeezenet1_0()
    module.load_state_dict(torch.load(real_data / "imagenet" / "squeezenet1_0.pth", weights_only=True))
    net = Network(module, name="squeezenet", input_size=(3, 224, 224))
    values = sp.singular_values(net)
    for name in ("features.0.weight", "features.12.expand3x3.weight", "classifier.1.weight"):
        _close(values[name], module.state_dict()[name].flatten(1))
