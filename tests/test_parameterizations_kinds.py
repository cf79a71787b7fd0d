"""What each family promises beyond what all do: formulas by hand, best ranks, identities, blocks and folding."""

import math

import pytest
import torch
from torch import nn

import sp_core.parameterizations as P
from sp_core.network import Network
from sp_core.parameterizations import cp, low_rank
from sp_core.parameterizations.bases import KINDS

SHAPE = (8, 6, 3, 3)


def _weight(shape=SHAPE):
    return torch.randn(shape, dtype=torch.float64)


def _error(own, weight):
    return float((own(*own.right_inverse(weight)) - weight).square().sum())


# --- symmetric ------------------------------------------------------------------------------------------------------


def test_triangular_starts_from_the_upper_triangle_and_projects_to_the_mean():
    own = P.Tied((3, 3), "triangular")
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert own(*own.start(weight)).tolist() == [[1, 2, 3], [2, 5, 6], [3, 6, 9]]
    assert own(*own.right_inverse(weight)).tolist() == [[1, 3, 5], [3, 5, 7], [5, 7, 9]]


def test_the_n_way_figure():
    first = torch.arange(16.0).view(4, 4)

    def made(form):
        own = P.Tied((4, 4), form)
        return own(*own.start(first)).tolist()

    assert made("4-way-chunking") == [[0, 1, 2, 3]] * 4
    assert made("4-way-blocking") == [[0, 1, 1, 0], [4, 5, 5, 4], [4, 5, 5, 4], [0, 1, 1, 0]]
    assert made("4-way-triangulizing") == [[0, 1, 2, 3], [1, 5, 6, 2], [2, 6, 5, 1], [3, 2, 1, 0]]
    assert made("8-way-triangulizing") == [[0, 1, 1, 0], [1, 5, 5, 1], [1, 5, 5, 1], [0, 1, 1, 0]]


def test_symmetric_matrices_are_reached_exactly():
    target = _weight((6, 6, 3, 3))
    target = (target + target.transpose(0, 1)) / 2
    for own in (P.Eigen(target.shape, 6), P.Tied(target.shape, "triangular"), P.Average(target.shape)):
        assert _error(own, target) < 1e-20
    definite = torch.einsum("ncij,mcij->nmij", target, target) + 6 * torch.eye(6).double()[:, :, None, None]
    assert _error(P.LDL(target.shape), definite) < 1e-20


def test_eigen_is_the_nearest_symmetric_matrix_of_its_rank():
    weight = _weight((6, 6))
    values = torch.linalg.eigvalsh((weight + weight.mT) / 2).abs().sort(descending=True).values
    skew = (weight - weight.mT) / 2
    own = P.Eigen((6, 6))
    assert own.rank == 3 and int(torch.linalg.matrix_rank(own(*own.right_inverse(weight)))) == 3
    assert _error(own, weight) == pytest.approx(float(values[3:].square().sum() + skew.square().sum()))
    assert (P.Eigen((5, 5)).rank, P.Eigen((5, 5)).trained) == (3, 18)


def test_ldl_is_near_the_symmetric_part_and_its_numbers_stay_of_a_size():
    weight = _weight((64, 64, 3, 3))
    nearest = (weight + weight.transpose(0, 1)) / 2
    own = P.LDL(weight.shape)
    assert (own(*own.right_inverse(weight)) - nearest).norm() < 0.02 * nearest.norm()
    hollow = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # has no LDL without pivoting
    assert own(*own.right_inverse(torch.zeros(64, 64, 3, 3))).isfinite().all()
    two = P.LDL((2, 2))
    assert (two(*two.right_inverse(hollow)) - hollow).abs().max() <= 0.05 + 1e-6
    start = own(*own.start(0.05 * weight))
    assert 0.5 < float(start.std() / (0.05 * weight).std()) < 3


def test_soft_l1_pays_in_training_and_is_symmetric_afterwards():
    conv = P.apply(nn.Conv2d(3, 3, 2, bias=False), "soft-l1", [""])
    raw = conv.parametrizations.weight.original0
    with torch.no_grad():
        raw.copy_(torch.arange(36.0).view(3, 3, 2, 2))
    by_hand = sum(abs(raw[i, j] - raw[j, i]).sum() for i in range(3) for j in range(3))
    paid = P.asymmetry(nn.Sequential(nn.ReLU(), conv))
    assert paid == by_hand and by_hand > 0
    (gradient,) = torch.autograd.grad(paid, raw)
    assert torch.equal(gradient[0, 1], torch.full((2, 2), -2.0)) and gradient[0, 0].abs().sum() == 0
    assert torch.equal(conv.train().weight, raw)
    hard = conv.eval().weight
    assert torch.equal(hard[2, 0], raw[0, 2]) and torch.equal(hard[0, 2], raw[0, 2])
    assert torch.equal(P.fold(conv.train()).weight, hard) and torch.equal(conv.weight, raw)
    assert P.asymmetry(nn.Linear(2, 2)) == 0


# --- Dirac ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("conv", "size"), [(nn.Conv1d, (9,)), (nn.Conv2d, (7, 8)), (nn.Conv3d, (5, 4, 6))])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_dirac_at_one_and_zero_is_the_identity(conv, size, kernel):
    layer = P.apply(conv(4, 4, kernel, padding=kernel // 2, bias=False).double(), "dirac", [""])
    _set(layer, 1.0, 0.0)
    images = _weight((2, 4, *size))
    assert torch.equal(layer(images), images)


def _set(layer, a, b):
    with torch.no_grad():
        layer.parametrizations.weight.original1.fill_(a)
        layer.parametrizations.weight.original2.fill_(b)


def test_dirac_by_the_formula():
    own = P.Dirac((4, 6, 3, 3))
    weight, a, b = _weight((4, 6, 3, 3)), _weight((4,)), _weight((4,))
    made = own(weight, a, b)
    for o in range(4):
        expected = b[o] * weight[o] / weight[o].square().sum().sqrt()
        expected[o, 1, 1] += a[o]
        assert torch.allclose(made[o], expected)


def test_every_weight_has_a_dirac_form():
    for shape in ((4, 6, 3, 3), (6, 4, 3, 3), (5, 5, 1, 1), (4, 8, 3)):
        weight = _weight(shape)
        for own in (P.Dirac(shape), *([P.DiracFirst(shape)] if max(shape[:2]) % min(shape[:2]) == 0 else [])):
            assert _error(own, weight) < 1e-24
    pure, a, b = P.Dirac((4, 4, 3, 3)).right_inverse(2 * P.delta((4, 4, 3, 3)))
    assert a.tolist() == [2] * 4 and b.tolist() == [0] * 4 and pure.abs().sum() == 0


def test_dirac_starts_as_the_papers_do():
    weight = _weight((4, 4, 3, 3))
    kept, a, b = P.Dirac(weight.shape).start(weight)
    assert torch.equal(kept, weight) and set(a.tolist()) == {1.0} and set(b.tolist()) == {0.1}
    own = P.Dirac(weight.shape)
    assert torch.allclose((own(kept, a, b) - P.delta(weight.shape)).flatten(1).norm(dim=1), b)
    kept, a, b = P.DiracFirst(weight.shape).start(weight)
    assert (a.tolist(), b.tolist()) == ([5.0], [1e-5])


def test_first_dirac_after_ncrelu_is_the_identity():
    layer = P.apply(nn.Conv2d(8, 4, 3, padding=1, bias=False).double(), "dirac-v1", [""])
    _set(layer, 1.0, 0.0)
    images = _weight((2, 4, 6, 6))
    assert torch.equal(layer(P.NCReLU()(images)), images)
    wide = P.apply(nn.Conv2d(3, 6, 3, padding=1, bias=False).double(), "dirac-v1", [""])
    _set(wide, 1.0, 0.0)
    few = _weight((2, 3, 6, 6))
    assert torch.equal(wide(few), torch.cat([few, few], 1))


def _diracnet():
    """A small DiracNet: stem with BatchNorm, then ReLU, Dirac convolution, BatchNorm; statistics of some images."""
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)]
    for width in (8, 16, 16):
        before = layers[-1].num_features
        layers += [nn.ReLU(), nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    net = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    P.apply(net, "dirac", ["3", "6", "9"], fresh=True)
    for _ in range(3):
        net(torch.randn(16, 3, 8, 8))
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return net.eval()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_diracnet_folds_into_convolutions_and_relus(dtype, close):
    net = _diracnet().to(dtype)
    images = torch.randn(4, 3, 8, 8, dtype=dtype)
    plain = P.fold_norms(net, (3, 8, 8))
    assert (plain(images) - net(images)).abs().max() < close
    kinds = {type(part).__name__ for part in plain.children()}
    assert kinds == {"Conv2d", "Identity", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"}
    # Dirac and BatchNorm have four numbers a channel (a, b, γ, β), the folded network one, the bias; the stem two.
    channels = 8 + 16 + 16
    assert _count(net) - _count(plain) == 3 * channels + 8


def _count(net):
    return sum(own.numel() for own in net.parameters())


class _Residual(nn.Module):
    """The convolution is read twice, so its BatchNorm cannot go into it; the second pair can."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        first = self.conv1(x)
        return first + self.bn2(self.conv2(torch.relu(self.bn1(first))))


def test_a_batch_norm_beside_another_reader_stays():
    net = _Residual()
    net(torch.randn(8, 3, 6, 6))
    net.eval()
    plain = P.fold_norms(net, (3, 6, 6))
    images = torch.randn(2, 3, 6, 6)
    assert (plain(images) - net(images)).abs().max() < 1e-5
    assert isinstance(plain.bn1, nn.BatchNorm2d) and isinstance(plain.bn2, nn.Identity)


def test_a_residual_network_folds():
    from sp_core import zoo

    net = zoo.create("cifar-resnet18", classes=10).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    plain = P.fold_norms(net, (3, 32, 32))
    images = torch.randn(1, 3, 32, 32)
    assert torch.allclose(plain(images), net(images), atol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in plain.modules())


# --- low rank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["svd", "separable"])
def test_error_is_the_energy_of_the_singular_values_left_out(scheme):
    weight = _weight()
    matrix = weight.flatten(1) if scheme == "svd" else weight.permute(1, 2, 3, 0).reshape(18, 24)
    energy = torch.linalg.svdvals(matrix).square()
    for rank in range(1, low_rank.ranks(SHAPE, scheme) + 1):
        assert _error(P.LowRank(SHAPE, scheme, rank), weight) == pytest.approx(float(energy[rank:].sum()), abs=1e-9)


@pytest.mark.parametrize("scheme", [name for name in low_rank.NAMES if name != "cp"])
def test_full_rank_gives_the_weight_back(scheme):
    weight = _weight()
    assert _error(P.LowRank(SHAPE, scheme, low_rank.ranks(SHAPE, scheme)), weight) < 1e-20


def test_low_rank_of_a_linear_layer():
    layer = P.apply(nn.Linear(10, 6), "svd", [""], rank=2)
    assert int(torch.linalg.matrix_rank(layer.weight)) == 2 and P.free_parameters(layer) == 2 * 16 + 6


def test_counts_by_the_papers_formulas():
    n, c, d, k = 16, 12, 3, 5
    assert P.LowRank((n, c, d, d), "separable", k).trained == k * (c + n) * d  # Jaderberg, scheme 2
    assert P.LowRank((n, c, d, d), "basis", k).trained == 2 * k * d + n * c * k  # scheme 1: basis and coefficients
    assert P.LowRank((n, c, d, d), "svd", k).trained == k * (c * d * d + n)
    assert P.LowRank((n, c, d, d), "cp", k).trained == k * (n + c + d + d)
    assert P.LowRank((n, c, d, d), "tucker", 8).trained == 6 * c + 8 * 6 * d * d + 8 * n  # 6 = 8 · 12 / 16


def test_jaderbergs_first_scheme_shares_separable_kernels_among_channels():
    own = P.LowRank(SHAPE, "basis", 4)
    columns, rows, mixing = own.right_inverse(_weight())
    kernels = columns[:, 0] * rows[:, 0]  # [4, 3, 3]
    assert all(int(torch.linalg.matrix_rank(kernel)) == 1 for kernel in kernels)
    by_hand = torch.einsum("ncm,mij->ncij", mixing.view(8, 6, 4), kernels)
    assert torch.allclose(own(columns, rows, mixing), by_hand)


# --- CP -------------------------------------------------------------------------------------------------------------


def _planted(rank, shape=(10, 8, 5, 5)):
    parts = [torch.randn(size, rank, dtype=torch.float64) for size in shape]
    return torch.einsum("nr,cr,ir,jr->ncij", *parts)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cp_finds_what_was_planted(rank):
    weight = _planted(rank)
    found = torch.einsum("nr,cr,ir,jr->ncij", *cp.factors(weight, rank, sweeps=2000))
    assert (found - weight).norm() < 1e-2 * weight.norm()


def test_cp_at_rank_one_is_a_fixed_point_of_the_power_method():
    weight = _weight()
    a, b, u, v = (factor[:, 0] for factor in cp.factors(weight, 1, sweeps=500))
    for axes, own, others in (("ncij,c,i,j->n", a, (b, u, v)), ("ncij,n,c,j->i", u, (a, b, v))):
        found = torch.einsum(axes, weight, *others)
        assert nn.functional.cosine_similarity(found, own, dim=0) > 1 - 1e-5
    norms = [float(part.norm()) for part in (a, b, u, v)]
    assert norms == pytest.approx([norms[0]] * 4)


def test_cp_is_stationary_and_better_at_higher_rank():
    weight = _weight()
    errors = []
    for rank in (1, 4, 16, 36):
        parts = [part.requires_grad_() for part in cp.factors(weight, rank, sweeps=1500)]
        loss = (torch.einsum("nr,cr,ir,jr->ncij", *parts) - weight).square().sum()
        gradients = torch.autograd.grad(loss, parts)
        assert max(float(part.abs().max()) for part in gradients) < 0.05 * float(weight.square().sum()) ** 0.5
        errors.append(loss.item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 * errors[0]


# --- Ioannou's bases ------------------------------------------------------------------------------------------------


def test_joined_bases_are_crosses_with_corners_of_exactly_zero():
    for kernel in ((3, 3), (5, 5), (3, 7)):
        shape = (8, 6, *kernel)
        own = P.Bases(shape, "lr-join")
        made = own(*own.start(_weight(shape)))
        cross = torch.zeros(kernel, dtype=torch.bool)
        cross[kernel[0] // 2], cross[:, kernel[1] // 2] = True, True
        assert torch.count_nonzero(made[:, :, ~cross]) == 0
        assert bool(made[:, :, cross].all())


def test_joined_bases_are_the_layers_of_the_paper():
    own = P.Bases(SHAPE, "lr-join-wfull")
    across, down, full, join = parts = own.start(_weight())
    assert [part.shape[0] for part in parts] == [3, 3, 2, 8]
    images = _weight((2, 6, 7, 9))
    three = [
        nn.functional.conv2d(images, across, padding=(0, 1)),
        nn.functional.conv2d(images, down, padding=(1, 0)),
        nn.functional.conv2d(images, full, padding=1),
    ]
    by_layers = nn.functional.conv2d(torch.cat(three, 1), join)
    assert torch.allclose(nn.functional.conv2d(images, own(*parts), padding=1), by_layers)


def test_bases_keep_what_they_can_reach():
    weight = _weight()
    own = P.Bases(SHAPE, "lr")
    made = own(*own.right_inverse(weight))
    assert torch.equal(made[:4, :, 1], weight[:4, :, 1]) and torch.equal(made[4:, :, :, 1], weight[4:, :, :, 1])
    cross = P.Bases(SHAPE, "lr-join", 64)  # more bases than rank: exact on the cross
    kept = cross(*cross.right_inverse(weight))
    assert torch.allclose(kept[:, :, 1], weight[:, :, 1]) and torch.allclose(kept[:, :, :, 1], weight[:, :, :, 1])
    errors = [_error(P.Bases(SHAPE, "lr-join", count), weight) for count in (2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


def test_bases_count_and_start_as_in_the_paper():
    assert P.Bases((64, 64, 3, 3), "lr").trained == 64 * 64 * 3
    assert P.Bases((64, 64, 3, 3), "lr-join").trained == 64 * 64 * 3 + 64 * 64
    assert P.Bases((64, 64, 3, 3), "lr-join-wfull").trained == 48 * 64 * 3 + 16 * 64 * 9 + 64 * 64
    assert set(KINDS) == {"lr", "lr-join", "lr-join-wfull"}
    across, down, join = P.Bases((128, 128, 3, 3), "lr-join").start(_weight((128, 128, 3, 3)))
    std = math.sqrt(2 / (3 * 64 + 3 * 64))
    assert float(across.std()) == pytest.approx(std, rel=0.02) == float(down.std())
    assert float(join.std()) == pytest.approx(math.sqrt(2 / 128), rel=0.02)


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d])
def test_grouped_convolution_is_block_diagonal(groups, conv):
    real = conv(8, 12, 3, groups=groups, bias=False)
    dense = P.Grouped((12, 8, *real.kernel_size), groups)
    images = torch.randn(2, 8, *[9] * len(real.kernel_size))
    function = nn.functional.conv1d if conv is nn.Conv1d else nn.functional.conv2d
    assert torch.allclose(function(images, dense(real.weight)), real(images), atol=1e-5)
    assert torch.equal(dense.right_inverse(dense(real.weight))[0], real.weight)
    assert dense.trained == real.weight.numel() == 12 * 8 * 3 ** len(real.kernel_size) // groups


def test_groups_of_the_papers_networks():
    # Deep Roots, NiN: root-16 has 16 and 8 groups, tree-16 has 16 and 32; ResNet-50 root-8 has 8, 4, 2, 1.
    assert P.schedule("root", 16, 2) == (16, 8) and P.schedule("tree", 16, 2) == (16, 32)
    assert P.schedule("root", 8, 4) == (8, 4, 2, 1) and P.schedule("column", 4, 2) == (4, 4)
    # NiN on CIFAR-10: 192·96·25 and 192·192·9 weights are divided, the other 966,986 − 792,576 are not.
    with torch.device("meta"):
        for shape, first, total in (("root", 4, 455_498), ("tree", 4, 331_082), ("column", 4, 372_554)):
            net = nn.Sequential(nn.Conv2d(96, 192, 5, bias=False), nn.Conv2d(192, 192, 3, bias=False))
            rest = 966_986 - P.free_parameters(net)
            assert P.free_parameters(P.apply(net, shape, groups=first)) + rest == total


# --- small layers ---------------------------------------------------------------------------------------------------


def test_small_layers_do_what_the_parametrised_weight_does():
    from sp_core.weights import factor, site

    net = Network(nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, padding=1)), name="t", input_size=(3, 7, 7))
    for scheme in ("svd", "separable", "basis", "tucker"):
        row = factor(site(net, "1"), scheme, 3)
        conv = nn.Conv2d(6, 8, 3, padding=1)
        conv.load_state_dict(net.module[1].state_dict())
        P.apply(conv, scheme, [""], rank=3)
        images = torch.randn(2, 6, 7, 7)
        assert torch.allclose(row.layers(images), conv(images), atol=1e-5)
        assert P.parametrized(conv)[""].trained == row.parameters
        empty = P.restructured(nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, padding=1)), {"1": (scheme, 3)})
        empty[1].load_state_dict(row.layers.state_dict())
        assert torch.equal(empty[1](images), row.layers(images))
