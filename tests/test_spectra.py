"""Singular values against the SVD, ranks against hand-made spectra, random bands against drawn matrices."""

import math

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights import effective_rank, energy_rank, random_band, read_spectra, stable_rank, weights
from sp_core.weights.spectra import _marchenko_pastur, gram_values, spectrum_steps


def _network(*layers: nn.Module, size=(3, 8, 8)) -> Network:
    return Network(nn.Sequential(*layers), name="tiny", input_size=size)


def _close(values: torch.Tensor, matrix: torch.Tensor) -> None:
    expected = torch.linalg.svdvals(matrix.double())
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


def test_positions_view_equals_one_svd_a_position():
    net = _network(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 4))
    values = sp.singular_values(net, view="positions")
    weight = net.module[0].weight.double()
    for index in range(9):
        _close(values["0.weight"][index], weight[:, :, index // 3, index % 3])
    _close(values["2.weight"][0], net.module[2].weight)
    with pytest.raises(SpError, match="'flat' or 'positions'; got 'sideways'"):
        sp.singular_values(net, view="sideways")


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
