"""Every parametrisation, by name: counts, projections, gradients, training, and life inside a network."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import sp_core.parameterizations as P
from sp_core.errors import SpError
from sp_core.network import Network, predict
from sp_core.trace import private_copy
from sp_core.weights import weights

GROUPED = {key: {"groups": 2} for key in ("root", "tree", "column")}
CLOSED = [name for name in P.names() if name not in {"basis", "cp", "lr-join", "lr-join-wfull"}]  # those: near the best
SHAPE = (8, 8, 3, 3)


def _made(name, shape=SHAPE, **options):
    options = {**GROUPED.get(name, {}), **options}
    conv = nn.Conv2d(shape[1], shape[0], tuple(shape[2:]), bias=False, dtype=torch.float64)
    return P.parametrized(P.apply(conv, name, [""], **options))[""]


def _network(channels=8):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * 36, 5),
    )


def _with(name, **options):
    return P.apply(_network(), name, ["2"], **GROUPED.get(name, {}), **options)


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(3))


def test_the_table():
    assert len(P.names()) == 26
    assert {P.entry(name).family for name in P.names()} == {"symmetric", "low rank", "Dirac", "groups"}
    for name in P.names():
        assert P.entry(name).formula and any(year in P.entry(name).source for year in ("19", "20"))


@pytest.mark.parametrize("name", P.names())
def test_right_inverse_gives_the_parts_it_promises(name):
    own = _made(name)
    weight = torch.randn(SHAPE)
    parts = own.right_inverse(weight)
    assert tuple(tuple(part.shape) for part in parts) == own.parts
    assert all(part.dtype == torch.float32 and part.is_contiguous() for part in parts)
    assert own.trained == sum(part.numel() for part in parts) >= own.kept
    made = own(*parts)
    assert made.shape == SHAPE and made.dtype == torch.float32
    assert not any(part.data_ptr() == weight.data_ptr() for part in parts)


@pytest.mark.parametrize("name", CLOSED)
def test_projection_is_idempotent(name):
    own = _made(name).eval()
    weight = torch.randn(SHAPE, dtype=torch.float64)
    once = own(*own.right_inverse(weight))
    assert (own(*own.right_inverse(once)) - once).norm() < 1e-10 * once.norm()


@pytest.mark.parametrize("name", [name for name in P.names("symmetric") if name not in {"eigen", "ldl"}] + ["column"])
def test_linear_forms_project_orthogonally(name):
    own = _made(name).eval()
    weight = torch.randn(SHAPE, dtype=torch.float64)
    once = own(*own.right_inverse(weight))
    assert (once * (weight - once)).sum().abs() < 1e-9
    basis = torch.eye(math.prod(SHAPE), dtype=torch.float64).view(-1, *SHAPE)[::7]
    other = own(*own.right_inverse(basis.sum(0)))
    assert (other - weight).norm() >= (once - weight).norm()


@pytest.mark.parametrize("name", P.names())
def test_gradients_agree_with_perturbation(name):
    own = _made(name, (4, 4, 3, 3))
    parts = own.start(torch.randn(4, 4, 3, 3, dtype=torch.float64))
    parts = tuple((part + 0.1 * torch.randn_like(part)).requires_grad_() for part in parts)
    assert torch.autograd.gradcheck(own, parts)


LINEAR = [name for name in P.names("symmetric") if name not in {"eigen", "ldl", "soft-l1"}] + ["root", "tree", "column"]


@pytest.mark.parametrize("name", LINEAR)
def test_kept_is_the_rank_of_the_linear_map(name):
    own = _made(name, (4, 4, 3, 3))
    parts = own.start(torch.randn(4, 4, 3, 3, dtype=torch.float64))
    (jacobian,) = torch.autograd.functional.jacobian(own, parts)
    assert int(torch.linalg.matrix_rank(jacobian.reshape(4 * 4 * 9, -1))) == own.kept


@pytest.mark.parametrize("name", P.names())
@pytest.mark.parametrize("fresh", [False, True])
def test_one_step_of_training_keeps_the_structure_exactly(name, fresh):
    net = _with(name, fresh=fresh)
    before = net[2].weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(IMAGES), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in net.parameters() if part.ndim > 1)
    after = net.eval()[2].weight
    assert not torch.equal(before, after)
    _check(name, after.detach())


def _check(name, weight):
    """The structure, to the last bit."""
    swapped, turned = weight.transpose(0, 1), weight.transpose(2, 3)
    if name in {"soft-l1", "triangular", "average", "eigen", "ldl", "spatial-channel", "spatial-channel-average"}:
        assert torch.equal(weight, swapped)
    if name.startswith("spatial"):
        assert torch.equal(weight, turned)
    if name == "4-way-chunking":
        assert torch.equal(weight, weight[:2].repeat(4, 1, 1, 1))
    if name in {"4-way-blocking", "8-way-triangulizing"}:
        assert torch.equal(weight, weight.flip(0)) and torch.equal(weight, weight.flip(1))
    if name in {"4-way-triangulizing", "8-way-triangulizing"}:
        assert torch.equal(weight, swapped) and torch.equal(weight, swapped.flip(0, 1))
    if name in GROUPED:
        assert torch.count_nonzero(weight[:4, 4:]) == 0 == torch.count_nonzero(weight[4:, :4])
    if name == "lr-join":
        assert torch.count_nonzero(weight[:, :, ::2, ::2]) == 0
    if name == "lr":
        assert torch.count_nonzero(weight[:4, :, ::2]) == 0 == torch.count_nonzero(weight[4:, :, :, ::2])
    if name in {"svd", "separable", "tucker"}:
        matrix = weight.permute(1, 2, 3, 0).flatten(2).flatten(0, 1) if name == "separable" else weight.flatten(1)
        values = torch.linalg.svdvals(matrix.double())
        rank = {"svd": 4, "separable": 12, "tucker": 4}[name]
        assert values[rank] < 1e-5 * values[0] < values[rank - 1]


@pytest.mark.parametrize("name", P.names())
def test_copies_states_and_functional_calls(name):
    net = _with(name).eval()
    expected = net(IMAGES)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(IMAGES), expected)
    other = _with(name).eval()
    assert not torch.allclose(other(IMAGES), expected)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(IMAGES), expected)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert torch.equal(torch.func.functional_call(other, state, (IMAGES,)), expected)
    clone = private_copy(net)
    assert torch.equal(clone(IMAGES), expected)
    assert clone[2].parametrizations.weight.original0 is net[2].parametrizations.weight.original0
    assert private_copy(net, to="meta")(IMAGES.to("meta")).shape == expected.shape
    with torch.no_grad():
        twin[2].parametrizations.weight.original0.add_(1.0)
    assert torch.equal(net(IMAGES), expected)


@pytest.mark.parametrize("name", ["triangular", "average", "ldl", "eigen", "separable", "lr-join", "dirac", "tree"])
def test_several_networks_at_once_by_vmap(name):
    nets = [_with(name, fresh=True).eval() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(nets)

    def one(params, bufs):
        return torch.func.functional_call(nets[0], (params, bufs), (IMAGES,)).square().mean()

    with torch.no_grad():
        expected = torch.stack([net(IMAGES).square().mean() for net in nets])
    assert torch.allclose(torch.vmap(one)(parameters, buffers), expected, rtol=1e-4)
    gradients = torch.vmap(torch.func.grad(one))(parameters, buffers)
    assert gradients["2.parametrizations.weight.original0"].abs().sum() > 0


@pytest.mark.parametrize("name", P.names())
def test_made_on_the_meta_device_and_filled_later(name):
    net = _with(name)
    with torch.device("meta"):
        empty = _with(name)
    assert all(own.is_meta for own in empty.parameters())
    assert P.free_parameters(empty) == P.free_parameters(net)
    empty.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(empty.eval()(IMAGES), net.eval()(IMAGES))


@pytest.mark.parametrize("name", P.names())
def test_a_network_shows_the_dense_weight(name):
    module = _with(name).eval()
    net = Network(module, name="tiny", input_size=(3, 6, 6))
    assert [row.layer for row in weights(net)] == ["0", "2", "6"]
    assert torch.equal(weights(net)[1].tensor, module[2].weight)
    assert torch.allclose(predict(net, IMAGES), module(IMAGES), atol=1e-6)


@pytest.mark.parametrize("name", P.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folded_is_unfolded(name, dtype):
    net = P.apply(_network().to(dtype), name, ["2"], **GROUPED.get(name, {})).eval()
    images = IMAGES.to(dtype)
    expected = net(images)
    plain = P.fold(net)
    assert (plain(images) - expected).abs().max() < (1e-10 if dtype == torch.float64 else 1e-5)
    assert type(plain[2]) is nn.Conv2d and list(plain.state_dict()) == list(_network().state_dict())
    assert plain[2].weight.requires_grad and plain[2].weight.is_leaf
    assert torch.equal(net(images), expected) and parametrize.is_parametrized(net[2])  # the original stays
    with torch.no_grad():
        plain[0].weight.zero_()
    assert torch.equal(net(images), expected)


# --- choosing layers ------------------------------------------------------------------------------------------------


def test_counts_of_the_papers_networks():
    # Source: Zagoruyko's lecture, with the conventions of trainable parameters (BatchNorm's scale and shift included).
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        for make, layers, plain, symmetric in (
            (models.resnet18, ["layer*.conv2"], 11_689_512, 8_564_712),
            (models.resnet50, ["*.conv2"], 25_557_032, 19_915_400),
            (models.resnet101, ["*.conv2"], 44_549_160, 33_913_608),
        ):
            net = make()
            assert P.free_parameters(net) == plain
            assert P.free_parameters(P.apply(net, "triangular", layers)) == symmetric
            assert sum(own.numel() for own in net.parameters()) == symmetric


INNER = (16, 16, 32, 32, 64, 64)  # the square 3×3 convolutions of WRN-16-1-bottleneck, 219,482 parameters in all


@pytest.mark.parametrize(
    ("name", "trained", "kept"),
    [
        ("soft-l1", 219_482, 172_106),
        ("triangular", 172_106, 172_106),
        ("average", 219_482, 172_106),
        ("ldl", 172_106, 172_106),
        ("eigen", 172_106, 172_106),  # printed as .173M: see Eigen
        ("spatial-average", 219_482, 187_226),
        ("spatial", 187_226, 187_226),
        ("spatial-channel-average", 219_482, 155_642),
        ("spatial-channel", 155_642, 155_642),
    ],
)
def test_counts_of_the_lectures_table(name, trained, kept):
    with torch.device("meta"):
        net = P.apply(nn.Sequential(*(nn.Conv2d(n, n, 3, bias=False) for n in INNER)), name)
    others = 219_482 - sum(9 * n * n for n in INNER)
    assert P.free_parameters(net, trained=True) + others == trained
    assert P.free_parameters(net) + others == kept


@pytest.mark.parametrize("n", [4, 8, 16])
def test_degrees_of_freedom_of_the_n_way_forms(n):
    expected = {
        "triangular": n * (n + 1) // 2,
        "4-way-chunking": n * n // 4,
        "4-way-blocking": n * n // 4,
        "4-way-triangulizing": n * n // 4 + n // 2,
        "8-way-triangulizing": n * n // 8 + n // 4,
    }
    for form, free in expected.items():
        at = P.places(form, n)
        assert len(at.unique()) == free == P.Tied((n, n), form).kept == int(at.max()) + 1


@pytest.mark.parametrize("n", [1, 3, 5, 7])
def test_odd_sizes_are_numbered_without_gaps(n):
    for form in set(P.FORMS) - {"4-way-chunking"}:
        at = P.places(form, n)
        assert at.unique().tolist() == list(range(P.FORMS[form].free(n))), form


def test_layers_by_name_by_pattern_and_by_default():
    def names(*args, **options):
        return list(P.parametrized(P.apply(_network(), *args, **options)))

    assert names("triangular") == ["2"]
    assert names("svd") == ["0", "2"]  # linear layers only when asked for
    assert names("svd", ["6", "0"], rank=0.25) == ["0", "6"]
    assert names("average", ["*"]) == ["2"]
    net = P.apply(nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(3))), "root", ["2", "0", "1"], groups=4)
    assert [P.parametrized(net)[name].groups for name in "201"] == [4, 2, 1]


def test_memory_of_the_weights_is_never_shared():
    net = _network()
    clone = private_copy(net)
    before = net[2].weight.detach().clone()
    P.apply(clone, "triangular")
    with torch.no_grad():
        clone[2].parametrizations.weight.original0.zero_()
    assert torch.equal(net[2].weight, before) and isinstance(net[2].weight, nn.Parameter)


def test_assigning_a_weight_projects_it():
    net = _with("triangular")
    wanted = torch.randn(SHAPE)
    net[2].weight = wanted
    assert torch.allclose(net[2].weight, (wanted + wanted.transpose(0, 1)) / 2)


def test_frozen_weights_stay_frozen():
    net = _network().requires_grad_(False)
    assert not any(own.requires_grad for own in P.apply(net, "dirac", ["2"]).parameters())
    assert not any(own.requires_grad for own in P.fold(net).parameters())


def test_torchs_own_parametrisations_fold_too():
    net = nn.Sequential(parametrize.register_parametrization(nn.Linear(4, 4), "weight", _Double()))
    plain = P.fold(net)
    assert type(plain[0]) is nn.Linear and torch.equal(plain[0].weight, net[0].weight)
    assert P.parametrized(net) == {}


class _Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_what_cannot_be_is_said():
    with pytest.raises(SpError, match=r"'triangle' is not one of the 26 parametrisations; did you mean triangular"):
        P.apply(_network(), "triangle")
    with pytest.raises(SpError, match="0 cannot be triangular: 8×3 channels are not square"):
        P.apply(_network(), "triangular", ["0"])
    with pytest.raises(SpError, match="1 cannot be svd: a ReLU is no convolution"):
        P.apply(_network(), "svd", ["1"])
    with pytest.raises(SpError, match="'9' is no layer of this network; try 0, 2"):
        P.apply(_network(), "svd", ["9"])
    with pytest.raises(SpError, match="'rank' is not an option of average; its options: none"):
        P.apply(_network(), "average", rank=2)
    with pytest.raises(SpError, match="root needs groups="):
        P.apply(_network(), "root", ["2"])
    with pytest.raises(SpError, match="2 cannot be column: 8 outputs and 8 inputs cannot both be divided into 3"):
        P.apply(_network(), "column", ["2"], groups=3)
    with pytest.raises(SpError, match="under 'svd' is from 1 to 8, or a share between 0 and 1; got 9"):
        P.apply(_network(), "svd", ["2"], rank=9)
    with pytest.raises(SpError, match=r"No layer of this network can be triangular \(0: 8×3 channels are not square"):
        P.apply(nn.Sequential(nn.Conv2d(3, 8, 3)), "triangular")
    with pytest.raises(SpError, match="2 cannot be average: its weight is parametrised already"):
        P.apply(_with("average"), "average", ["2"])
    with pytest.raises(SpError, match="0 cannot be svd: it has 2 groups"):
        P.apply(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "svd", ["0"])
    with pytest.raises(SpError, match="6 channels cannot be cut into four strips"):
        P.apply(_network(6), "4-way-chunking", ["2"])
    for rank in (-1, 9):
        with pytest.raises(SpError, match=f"8 channels has a rank from 1 to 8; got {rank}"):
            P.apply(_network(), "eigen", "2", rank=rank)
    with pytest.raises(SpError, match="under 'svd' is from 1 to 8, or a share between 0 and 1; got 0"):
        P.apply(_network(), "svd", ["2"], rank=0)
    with pytest.raises(SpError, match="at least 2 bases, one across and one down; got 1"):
        P.apply(_network(), "lr-join", ["2"], filters=1)
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    with pytest.raises(SpError, match="0 and 1 share one weight"):
        P.apply(shared, "average", ["1"])
    with pytest.raises(SpError, match="Filter groups form a root, a tree, a column; got 'bush'"):
        P.schedule("bush", 2, 2)
