"""The zoo: names, sizes, parameters as published, and each family against a second opinion."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from sp_core import zoo
from sp_core.checkpoints.catalogue import empty_on_meta, skeleton
from sp_core.errors import SpError
from sp_core.parameterizations import fold_norms, parametrized
from sp_core.trace import private_copy
from sp_core.zoo.fcn import Enlarge
from sp_core.zoo.vgg_low_rank import low_rank

slow = pytest.mark.slow

NAMES = ["textures-alexnet", "textures-resnet", "textures-vgg"]


def test_the_names_are_there_and_sorted():
    assert set(NAMES) <= set(zoo.names())
    assert zoo.names() == sorted(zoo.names())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_maps_its_input_to_its_classes(name):
    entry = zoo.entry(name)
    net = zoo.create(name)
    assert net.training
    assert net(torch.zeros(2, *entry.input_size)).shape == (2, len(entry.classes))
    assert zoo.create(name, classes=7)(torch.zeros(1, *entry.input_size)).shape == (1, 7)
    assert len(entry.mean) == len(entry.std) == entry.input_size[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_fits_in_four_megabytes(name):
    assert 4 * sum(value.numel() for value in zoo.create(name).state_dict().values()) < 4e6


def test_macs_by_hand():
    """Multiply-accumulates from output positions × filter size, counted by hand; all under 60 million."""
    alexnet = 29 * 29 * 64 * 363 + 14 * 14 * 80 * 1600 + 36 * 128 * 720 + 36 * 128 * 1152 + 512 * 256 + 256 * 18
    vgg = 4096 * 32 * 27 + 1024 * 48 * 288 + 256 * 80 * (432 + 720) + 64 * 128 * (720 + 1152) + 128 * 18
    for name, by_hand in (("textures-alexnet", alexnet), ("textures-vgg", vgg)):
        assert by_hand < 60e6
        assert _macs(zoo.create(name), torch.zeros(1, 3, 64, 64)) == by_hand
    assert _macs(zoo.create("textures-resnet"), torch.zeros(1, 3, 64, 64)) < 60e6


def _macs(net, x):
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    net.eval()(x)
    return total


def test_the_first_layers_are_those_of_the_papers():
    first = {name: next(m for m in zoo.create(name).modules() if isinstance(m, nn.Conv2d)) for name in NAMES}
    assert first["textures-alexnet"].kernel_size == (11, 11)
    assert first["textures-vgg"].kernel_size == (3, 3)
    assert first["textures-resnet"].kernel_size == (7, 7)
    assert {"features.0.weight", "classifier.0.weight"} <= set(zoo.create("textures-alexnet").state_dict())
    assert {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"} <= set(zoo.create("textures-resnet").state_dict())


def test_the_seed_decides_the_weights():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(zoo.create("textures-resnet").state_dict()["conv1.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_wrong_name_gets_close_matches():
    with pytest.raises(
        SpError, match=r"'textures-alexnt' is not an architecture of the zoo; did you mean .*textures-alexnet"
    ):
        zoo.create("textures-alexnt")
    with pytest.raises(SpError, match=r"names\(\) lists all \d+, such as textures-vgg"):
        zoo.entry("§§")


def test_wrong_options_are_named():
    with pytest.raises(SpError, match="'classses' is not an option of textures-vgg; its options are: classes"):
        zoo.create("textures-vgg", classses=3)
    with pytest.raises(SpError, match="classes must be a whole number of 1 or more, got 0"):
        zoo.create("textures-vgg", classes=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("wrn-16-1", 175_066),
        ("wrn-16-8", 10_961_370),
        ("wrn-16-10", 17_116_634),
        ("wrn-22-8", 17_158_106),
        ("wrn-28-10", 36_479_194),
        ("wrn-28-12", 52_517_850),
        ("wrn-40-1", 563_930),
        ("wrn-40-2", 2_243_546),
        ("wrn-40-4", 8_949_210),
        ("wrn-40-8", 35_748_314),
        ("cifar-resnet56b", 855_770),
        ("cifar-resnet18", 11_173_962),
        ("cifar-resnet50", 23_520_842),
        ("lenet5", 156 + 2_416 + 48_120 + 10_164 + 850),
        ("tutorial-cifar-net", 456 + 2_416 + 48_120 + 10_164 + 850),
        ("mnist-example", 320 + 18_496 + 1_179_776 + 1_290),
    ],
)
def test_parameters_are_as_many_as_published(name, parameters):
    """WRN: the paper's numbers; the small ones: (inputs + 1) × outputs of each layer."""
    assert sum(value.numel() for value in skeleton(f"zoo:{name}").parameters()) == parameters


def test_no_name_is_given_twice():
    families = zoo._FAMILIES
    assert sum(len(family.ENTRIES) for family in families) == len(zoo.names())
    assert len({zoo.entry(name).about for name in zoo.names()}) == len(zoo.names())


# Networks that end in one map of logits a class, not in a vector.
MAPS = {"fcn32s": (224, 224), "fcn8s": (224, 224), "unet": (388, 388), "unet-milesial": (256, 256)}
MAPS |= {"ecg-resnet34": (1, 30)}
QUICK = ("textures", "lenet5", "mnist", "tutorial", "nin-cifar", "wrn-16-1", "cifar-resnet20", "lstm", "gru", "alexnet")


def _logits_without_arithmetic(name):
    with empty_on_meta():
        module = zoo.create(name, classes=3)
    return private_copy(module, to="meta").eval()(torch.empty(1, *zoo.entry(name).input_size, device="meta"))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n.startswith(QUICK) else slow) for n in zoo.names()])
def test_every_network_of_the_zoo_takes_what_its_entry_says(name):
    """One tensor of logits, found without arithmetic."""
    entry, logits = zoo.entry(name), _logits_without_arithmetic(name)
    assert logits.shape == (1, 3, *MAPS.get(name, ()))
    assert len(entry.mean) == len(entry.std) and len(entry.mean) in {0, entry.input_size[0]} and entry.about


# One of each family, and the ones whose arithmetic is not that of a chain of layers.
NUMBERS = (
    *("lenet5-1998", "alexnet-groups2", "nin-cifar-root4", "nin-cifar-c3-lr", "googlenet-lr", "resnet50-root8"),
    *("preact-resnet110", "cifar-resnet20-noshort", "wrn-16-1-bottleneck", "diracnet-16-1", "diracnet18-folded"),
    *("fractalnet-cifar", "densenet-bc-100-12", "resnext29-8x64d", "mobilenet-v1-0.25", "shufflenet-v1-g3-0.5"),
    *("condensenet-cifar-50", "msdnet-cifar10", "fcn8s", "unet-milesial", "tcn", "ecg-resnet34", "lstm", "gru"),
    *("vgg11-gmp-lr-join-wfull", "condnet-vgg11", "wrn-imagenet-18-1", "xception", "hrnet-w18", "se-resnet50"),
)
LIGHT = ("lenet5", "nin", "wrn", "cifar", "diracnet-", "lstm", "gru", "tcn", "condensenet", "msdnet", "mobilenet")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n.startswith(LIGHT) else slow) for n in NUMBERS])
def test_a_fresh_network_gives_finite_logits_that_depend_on_the_image(name):
    torch.manual_seed(1)
    net = zoo.create(name).eval()
    with torch.no_grad():
        logits = net(torch.rand(2, *zoo.entry(name).input_size))
    assert logits.isfinite().all() and (logits[0] - logits[1]).abs().max() > 1e-7


def test_families_make_members_that_are_not_listed():
    for name in ("wrn-22-3", "wrn-22-1-bottleneck", "resnet101-root4", "diracnet-10-1-folded", "densenet-bc-40-12"):
        assert name not in zoo.names()
        assert _logits_without_arithmetic(name).shape == (1, 3)
    for name in ("wrn-23-3", "wrn-16-0", "resnet50-root3", "diracnet-12-1", "densenet-bc-41-12", "cifar-resnet9"):
        with pytest.raises(SpError, match=f"'{name}' is not an architecture of the zoo"):
            zoo.entry(name)


def test_options_of_a_family_are_named_where_one_is_wrong():
    with pytest.raises(SpError, match="'skip' is not an option of msdnet-cifar10; its options are: classes, exits"):
        zoo.create("msdnet-cifar10", skip=1)
    with pytest.raises(SpError, match="did you mean triangular"):
        zoo.create("wrn-16-1-bottleneck", symmetry="triangle")


def _random(name):
    """In float64 and evaluation, with BatchNorm statistics that are not 0 and 1."""
    torch.manual_seed(4)
    net = zoo.create(name).double().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, low in zip(part.state_dict().values(), (0.5, -0.2, -0.2, 0.5), strict=False):
                nn.init.uniform_(value, low, low + 1)  # weight, bias, running mean and variance
    return net, torch.randn(2, *zoo.entry(name).input_size, dtype=torch.float64)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_cifar_resnets_are_torchvisions_behind_a_small_stem(name):
    ours, images = _random(f"cifar-{name}")
    theirs = torchvision.models.get_model(name, num_classes=10).double().eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False).double(), nn.Identity()
    state = ours.state_dict().items()
    theirs.load_state_dict(
        {key.replace("shortcut", "downsample").replace("linear", "fc"): value for key, value in state}
    )
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_cifar_vggs_have_torchvisions_features(depth):
    ours, images = _random(f"cifar-vgg{depth}-bn")
    features = torchvision.models.get_model(f"vgg{depth}_bn").double().eval().features
    features.load_state_dict({k.removeprefix("features."): v for k, v in ours.state_dict().items() if "features" in k})
    torch.testing.assert_close(ours(images), ours.classifier(features(images).flatten(1)))


def _before(state, x, prefix, shortcut, stride):
    """A pre-activation block from its weights: the skip leaves after the first ReLU where it has a convolution."""

    def activated(x, bn):
        mean, var, weight, bias = (
            state[f"{prefix}{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, weight, bias))

    first = activated(x, "bn1")
    skip = F.conv2d(first, state[prefix + shortcut], stride=stride) if prefix + shortcut in state else x
    out = F.conv2d(first, state[f"{prefix}conv1.weight"], stride=stride, padding=1)
    return skip + F.conv2d(activated(out, "bn2"), state[f"{prefix}conv2.weight"], padding=1)


def test_blocks_that_normalise_first():
    for name, group, shortcut in (
        ("wrn-16-2", "block{}.layer.", "convShortcut.weight"),
        ("cifar-preact-resnet18", "layer{}.", "shortcut.0.weight"),
    ):
        net, images = _random(name)
        state = net.state_dict()
        x = F.conv2d(images, state["conv1.weight"], padding=1)
        for stage in (1, 2, 3, 4)[: 3 if name == "wrn-16-2" else 4]:
            for block in (0, 1):
                x = _before(state, x, f"{group.format(stage)}{block}.", shortcut, 2 if stage > 1 and block == 0 else 1)
        x = F.relu(net.bn1(x)) if name == "wrn-16-2" else x
        last = net.fc if name == "wrn-16-2" else net.linear
        torch.testing.assert_close(net(images), last(F.avg_pool2d(x, x.shape[-1]).flatten(1)))


@pytest.mark.parametrize(("name", "padding"), [("lenet5", 2), ("tutorial-cifar-net", 0)])
def test_lenet_layer_by_layer(name, padding):
    net, images = _random(name)
    pool = nn.MaxPool2d(2)
    x = pool(F.conv2d(images, net.conv1.weight, net.conv1.bias, padding=padding).clamp(min=0))
    assert x.shape == (2, 6, 14, 14)
    x = pool(F.conv2d(x, net.conv2.weight, net.conv2.bias).clamp(min=0)).flatten(1)
    torch.testing.assert_close(net(images), net.fc3(net.fc2(net.fc1(x).clamp(min=0)).clamp(min=0)))


def test_symmetric_weights_are_symmetric_and_only_where_the_paper_has_them():
    torch.manual_seed(0)
    for name, last in (("wrn-16-1-bottleneck", "group2.1.conv2"), ("wrn-16-1", "block3.layer.1.conv2")):
        net = zoo.create(name, symmetry="triangular")
        found = parametrized(net)
        assert len(found) == 6 and last in found
        weight = net.get_submodule(last).weight
        assert torch.equal(weight, weight.transpose(0, 1))
        assert last.replace("conv2", "conv1") not in found


def test_a_folded_diracnet_starts_as_the_identity_and_a_tenth():
    torch.manual_seed(0)
    net = zoo.create("diracnet-10-1-folded")
    weight = net.features.group0.block1.conv.weight
    rest = weight - nn.init.dirac_(torch.empty_like(weight))
    torch.testing.assert_close(rest.flatten(1).norm(dim=1), torch.full((16,), 0.1))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


def test_diracnet_folds_into_the_chain_that_the_zoo_calls_folded():
    net, images = _random("diracnet-16-1")
    folded = fold_norms(net, (3, 32, 32))
    torch.testing.assert_close(folded(images), net(images))
    plain = zoo.create("diracnet-16-1-folded").double().eval()
    assert plain.load_state_dict(folded.state_dict()) and torch.allclose(plain(images), net(images))


@pytest.mark.parametrize("groups", [2, 8])
def test_a_root_module_is_a_convolution_with_a_block_diagonal_weight(groups):
    net, images = _random(f"nin-cifar-root{groups}")
    whole = zoo.create("nin-cifar").double().eval()
    state = net.state_dict()
    for name, count in (("conv2.weight", groups), ("conv3.weight", groups // 2)):
        blocks = torch.zeros_like(whole.state_dict()[name])
        out, into = blocks.shape[0] // count, blocks.shape[1] // count
        for g in range(count):
            rows = slice(g * out, (g + 1) * out)
            blocks[rows, g * into : (g + 1) * into] = state[name][rows]
        state[name] = blocks
    whole.load_state_dict(state)
    torch.testing.assert_close(whole(images), net(images))


def test_network_in_network_with_batchnorm_has_as_many_trained_numbers():
    for name, norms in (("nin-cifar-root4", 8), ("nin-cifar-c3-lr", 9)):
        plain, normed = zoo.create(name), zoo.create(name, batch_norm=True)
        count = [sum(value.numel() for value in net.parameters()) for net in (plain, normed)]
        assert count[0] == count[1] and plain.state_dict().keys() < normed.state_dict().keys()
        found = [name for name, part in normed.named_children() if isinstance(part, nn.BatchNorm2d)]
        assert len(found) == norms and normed(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_joined_low_rank_layer_is_a_cross():
    """1 × 3 beside 3 × 1, joined by 1 × 1, is one 3 × 3 layer whose corners are exactly zero."""
    torch.manual_seed(3)
    layer = low_rank(6, 8, join=True).double()
    cross = torch.zeros(8, 6, 3, 3, dtype=torch.float64)
    cross[:4, :, 1:2, :] += layer.filters1x3.weight
    cross[4:, :, :, 1:2] += layer.filters3x1.weight
    joined = torch.einsum("ok,kchw->ochw", layer.join.weight[:, :, 0, 0], cross)
    assert torch.equal(joined[:, :, ::2, ::2], torch.zeros(8, 6, 2, 2, dtype=torch.float64))
    bias = layer.join.weight[:, :, 0, 0] @ torch.cat([layer.filters1x3.bias, layer.filters3x1.bias]) + layer.join.bias
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, joined, bias, padding=1))


@pytest.mark.parametrize(("name", "peer"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_recurrent_cells_are_torchs(name, peer):
    net, x = _random(name)
    theirs = peer(10, 20, batch_first=True).double()
    cell = net.memory.cell
    own = (cell.input.weight, cell.hidden.weight, cell.input.bias, cell.hidden.bias)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), own, strict=True)))
    torch.testing.assert_close(net.memory(x)[:, :, 0].transpose(1, 2), theirs(x[:, :, 0].transpose(1, 2))[0])


def test_a_recurrent_network_takes_steps_one_after_the_other_and_says_when_they_are_too_many():
    net, _ = _random("gru")
    assert net(torch.zeros(1, 10, 1, 3, dtype=torch.float64)).shape == (1, 10)
    with pytest.raises(SpError, match="at most 1024 steps; got 1025"):
        net(torch.zeros(1, 10, 1, 1025, dtype=torch.float64))


def test_a_tcn_does_not_look_ahead():
    net, x = _random("tcn")
    changed = x.clone()
    changed[..., 500:] = 0
    torch.testing.assert_close(net.network(x)[..., :500], net.network(changed)[..., :500])
    assert not torch.equal(net.network(x), net.network(changed))


def test_fractalnet_drops_paths_in_training_only_and_never_all():
    torch.manual_seed(0)
    net = zoo.create("fractalnet-cifar")
    block = net.blocks[0].eval()
    x = torch.rand(1, 3, 8, 8)
    short = block.columns[0](x)
    assert torch.equal(block(x, only=0), short), "one column: the shortest path"
    deep = block(x, only=2)
    for layer in block.columns[2]:
        x = layer(x)
    assert torch.equal(deep, x), "one column: the longest path"
    first = block(torch.rand(1, 3, 8, 8), drop=1.0)
    assert first.isfinite().all(), "of each join one input is kept"


def test_c3_of_lenet_sees_the_maps_of_table_i():
    net, images = _random("lenet5-1998")
    maps = net.s2(net.c1(images))
    for index, seen in ((0, {0, 1, 2}), (5, {0, 1, 5}), (11, {0, 1, 2, 5}), (14, {0, 2, 3, 5}), (15, set(range(6)))):
        for channel in range(6):
            changed = maps.clone()
            changed[:, channel] += 1
            same = torch.equal(net.c3(changed)[:, index], net.c3(maps)[:, index])
            assert same == (channel not in seen)


def test_a_condensed_convolution_is_an_ordinary_one_with_its_outputs_shuffled():
    net, _ = _random("condensenet-cifar-50")
    layer = net.features.denseblock_1.denselayer_2.conv_1
    layer.index = torch.randperm(len(layer.index), generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, len(layer.index), 5, 5, dtype=torch.float64)
    plain = layer.conv(F.relu(layer.norm(x[:, layer.index])))
    order = [g * 8 + k for k in range(8) for g in range(4)]  # 32 outputs in four groups, interleaved
    torch.testing.assert_close(layer(x), plain[:, order])


def test_bilinear_enlarging_keeps_a_plane():
    """A ramp stays a ramp: twice as fine, exactly linear away from the border."""
    line = Enlarge(2, 4, 2)(torch.arange(8.0).expand(1, 2, 8, 8))[0, 1, 8]
    torch.testing.assert_close(line[3:-3].diff(), torch.full((11,), 0.5))
