import pytest
import torch
from torch import nn

from sp_core import zoo
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
    with pytest.raises(SpError, match=r"choose one of: .*textures-vgg"):
        zoo.entry("§§")


def test_wrong_options_are_named():
    with pytest.raises(SpError, match="'classses' is not an option of textures-vgg; its options are: classes"):
        zoo.create("textures-vgg", classses=3)
    with pytest.raises(SpError, match="classes must be a whole number of 1 or more, got 0"):
        zoo.create("textures-vgg", classes=0)
