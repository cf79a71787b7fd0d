"""Symmetry energies: projections are projections, random weights sit at the closed form, symmetric ones at one."""

import math

import pytest
import torch
from torch import nn

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights import KINDS, Weight, delta, identity_shares, project, symmetries
from sp_core.weights.dirac import identity_share
from sp_core.weights.symmetry import average, eigen, ldl, rank_share, symmetry, triangular

SHAPE = (6, 6, 3, 3)


def _weight(tensor: torch.Tensor, groups: int = 1) -> Weight:
    return Weight("a.weight", "a", "Conv2d", tensor, groups)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("shape", [SHAPE, (4, 4, 5, 5), (3, 3, 2, 2)])
def test_projection_is_an_orthogonal_projection_on_what_the_group_leaves_alone(kind, shape):
    weight = torch.randn(shape, dtype=torch.float64)
    once = project(weight, kind)
    assert torch.allclose(project(once, kind), once)
    assert (once * (weight - once)).sum().abs() < 1e-9
    for element in KINDS[kind]:
        assert torch.allclose(element(once), once)
    assert symmetry(_weight(once), kind).energy == pytest.approx(1)
    assert symmetry(_weight(weight - once), kind).energy == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", list(KINDS))
def test_expected_energy_is_the_rank_of_the_projection(kind):
    eye = torch.eye(math.prod(SHAPE), dtype=torch.float64).view(-1, *SHAPE)
    matrix = torch.stack([project(one, kind).flatten() for one in eye])
    assert rank_share(SHAPE, kind) == pytest.approx(int(torch.linalg.matrix_rank(matrix)) / len(matrix))


@pytest.mark.parametrize("kind", list(KINDS))
def test_random_weights_are_in_the_band(kind):
    rows = [symmetry(_weight(torch.randn(SHAPE)), kind) for _ in range(200)]
    inside = sum(row.low <= row.energy <= row.high for row in rows)
    assert inside >= 180  # two standard deviations: 95 %
    mean = sum(row.energy for row in rows) / len(rows)
    assert mean == pytest.approx(rows[0].expected, abs=(rows[0].high - rows[0].low) / math.sqrt(200))


def test_known_kernels():
    edge = torch.tensor([[1.0, 0, -1]] * 3).expand(1, 1, 3, 3)
    energy = {kind: symmetry(_weight(edge), kind).energy for kind in KINDS}
    assert energy["left–right"] == 0 and energy["up–down"] == pytest.approx(1)
    assert energy["half turn"] == 0 and energy["all eight"] == 0
    blob = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(2, 2, 3, 3)
    assert all(symmetry(_weight(blob), kind).energy == pytest.approx(1) for kind in KINDS)
    shear = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 0]]).expand(1, 1, 3, 3)
    assert symmetry(_weight(shear), "transpose").energy == pytest.approx(0.5)
    assert symmetry(_weight(shear), "quarter turns").energy == pytest.approx(0.25)


def test_channel_symmetry_is_about_every_position():
    weight = torch.randn(SHAPE)
    expected = (
        sum(average(weight[:, :, i, j]).square().sum() for i in range(3) for j in range(3)) / weight.square().sum()
    )
    assert symmetry(_weight(weight), "channels").energy == pytest.approx(float(expected), abs=1e-6)


def test_where_there_is_no_symmetry_the_reason_is_given():
    assert "6×3 channels are not square" in symmetry(_weight(torch.ones(6, 3, 3, 3)), "channels").reason
    assert "2 groups" in symmetry(_weight(torch.ones(6, 3, 3, 3), 2), "channels").reason
    assert "3×5 are not square" in symmetry(_weight(torch.ones(2, 2, 3, 5)), "transpose").reason
    assert symmetry(_weight(torch.ones(2, 2, 3, 5)), "left–right").reason is None
    row = symmetry(_weight(torch.zeros(2, 2, 3, 3)), "half turn")
    assert math.isnan(row.energy) and "all zero" in row.reason
    assert "no k×k kernels" in symmetry(_weight(torch.ones(4, 4, 1, 1)), "left–right").reason
    with pytest.raises(SpError, match=r"one of channels, left–right.*got 'mirror'"):
        symmetry(_weight(torch.ones(SHAPE)), "mirror")


def test_symmetries_of_a_network():
    net = Network(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 144)),
        name="tiny",
        input_size=(3, 8, 8),
    )
    rows = symmetries(net)
    assert len(rows) == 3 * len(KINDS)
    assert [row.layer for row in rows if row.kind == "channels" and row.reason is None] == ["1", "3"]


# --- forms ----------------------------------------------------------------------------------------------------------


def test_every_form_is_symmetric():
    free, vector = torch.randn(2, 5, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    for made in (average(free), triangular(free, vector), eigen(free, vector), ldl(free, vector)):
        assert torch.allclose(made, made.mT)
        assert torch.linalg.eigvals(made).imag.abs().max() < 1e-12  # symmetric, therefore real eigenvalues


def test_forms_reach_any_symmetric_matrix():
    target = average(torch.randn(4, 4, dtype=torch.float64))
    assert torch.allclose(triangular(target, target.diagonal()), target)
    values, vectors = torch.linalg.eigh(target)
    assert torch.allclose(eigen(vectors, values), target)
    positive = target @ target + torch.eye(4)
    cholesky = torch.linalg.cholesky(positive)
    scale = cholesky.diagonal()
    assert torch.allclose(ldl(cholesky / scale, scale.square()), positive)
    assert int(torch.linalg.matrix_rank(eigen(vectors[:, :2], values[:2]))) == 2


def test_triangular_by_hand():
    free = torch.tensor([[7.0, 2, 3], [7, 7, 5], [7, 7, 7]])
    assert triangular(free, torch.tensor([1.0, 4, 6])).tolist() == [[1, 2, 3], [2, 4, 5], [3, 5, 6]]


# --- Dirac ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (2, 5, 5, 5), (5, 2, 3), (3, 3, 1, 1), (2, 2, 3, 5)])
def test_delta_is_that_of_torch(shape):
    expected = torch.nn.init.dirac_(torch.empty(shape))
    assert torch.equal(delta(shape).float(), expected)


def test_identity_in_a_weight():
    noise = torch.randn(SHAPE, dtype=torch.float64)
    pure = identity_share(_weight(2.5 * delta(SHAPE)))
    assert (pure.coefficient, pure.share, pure.diagonal) == (pytest.approx(2.5), pytest.approx(1), pytest.approx(1))
    without = noise - delta(SHAPE) * noise
    assert identity_share(_weight(without)).diagonal == 0
    mixed = identity_share(_weight(3 * delta(SHAPE) + without))
    assert mixed.coefficient == pytest.approx(3)
    assert mixed.share == pytest.approx(9 * 6 / float(9 * 6 + without.square().sum()))
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1]).double()[:, None, None, None]
    cancelled = identity_share(_weight(signs * delta(SHAPE)))
    assert cancelled.share == pytest.approx(0) and cancelled.diagonal == pytest.approx(1)


def test_random_weight_has_the_expected_share():
    rows = [identity_share(_weight(torch.randn(SHAPE))) for _ in range(300)]
    assert sum(row.diagonal for row in rows) / 300 == pytest.approx(rows[0].diagonal_expected, rel=0.15)
    assert sum(row.share for row in rows) / 300 == pytest.approx(rows[0].expected, rel=0.4)
    assert sum(row.diagonal > row.diagonal_high for row in rows) < 30


def test_no_identity_where_there_is_no_middle():
    assert "no middle" in identity_share(_weight(torch.ones(2, 2, 4, 4))).reason
    assert "2 groups" in identity_share(_weight(torch.ones(2, 1, 3, 3), 2)).reason
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)), name="t", input_size=(3, 8, 8))
    assert [row.layer for row in identity_shares(net)] == ["0"]
