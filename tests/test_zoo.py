"""The zoo: names, sizes, parameters as published, and each family against a second opinion."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from sp_core import zoo
from sp_core.checkpoints.catalogue import skeleton
from sp_core.errors import SpError

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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.names() if "wrn" not in name or name.endswith(("-1", "-2"))])
def test_every_network_of_the_zoo_takes_what_its_entry_says(name):
    entry = zoo.entry(name)
    with torch.no_grad():
        logits = zoo.create(name, classes=3).eval()(torch.zeros(1, *entry.input_size))
    assert logits.shape == (1, 3) and logits.isfinite().all()
    assert len(entry.mean) == len(entry.std) == entry.input_size[0] and entry.about


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
