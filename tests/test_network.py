"""Networks, units, layers, captured maps: floor 0."""

import threading

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional as F

import sp_core as sp
from sp_core.trace import private_copy


class Block(nn.Module):
    """A residual block with the habits of real code: one ReLU used twice, in place, and an in-place sum."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.conv1(x))
        out = self.conv2(out)
        out += x
        return self.relu(out)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = Block()
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(F.relu(self.block(self.stem(x))).mean((2, 3)))


@pytest.fixture
def module():
    return Tiny()


@pytest.fixture
def net(module):
    return sp.Network(module, name="tiny", input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


def test_layers_are_in_execution_order_with_calls_counted(net):
    names = [layer.name for layer in net.layers]
    assert names == ["stem", "block.conv1", "block.relu", "block.conv2", "block.relu#2", "block", "fc"]
    assert net.layer("stem").output_shape == (4, 6, 6)
    assert net.layer("stem").is_map and not net.layer("fc").is_map
    assert not net.layer("block").leaf and net.layer("block.relu#2").call == 2


def test_captured_maps_are_what_the_layer_put_out_even_when_it_is_overwritten(net, module):
    images = torch.rand(2, 3, 8, 8)
    found = sp.activations(net, images, ["stem", "block.conv1", "block.conv2", "block.relu#2", "fc"])
    x = (images - 0.5) / 0.25
    stem = F.conv2d(x, module.stem.weight, module.stem.bias)
    conv1 = F.conv2d(stem, module.block.conv1.weight, module.block.conv1.bias, padding=1)
    conv2 = F.conv2d(conv1.relu(), module.block.conv2.weight, module.block.conv2.bias, padding=1)
    expected = {"stem": stem, "block.conv1": conv1, "block.conv2": conv2, "block.relu#2": (conv2 + stem).relu()}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach())
    assert found["block.conv1"].min() < 0, "the map before an in-place ReLU keeps its negative values"
    torch.testing.assert_close(found["fc"], sp.predict(net, images))


def test_capture_is_differentiable_and_stops_early(net):
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    stem = sp.activations(net, images, ["stem"])["stem"]
    (gradient,) = torch.autograd.grad(stem.sum(), images)
    assert gradient.abs().sum() > 0
    broken = private_copy(net.module)
    broken.fc = None
    stopped = sp.Network(broken, input_size=(3, 8, 8))
    assert sp.capture.capture(stopped.clone(), images, ["stem"])["stem"].shape == (1, 4, 6, 6)


def test_the_given_module_is_left_as_it_was(module):
    module.train()
    net = sp.Network(module, input_size=(3, 8, 8))
    images = torch.rand(1, 3, 8, 8)
    sp.predict(net, images)
    sp.activations(net, images, ["block"])
    assert module.training and module.block.relu.inplace
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in [*module.modules(), *net.module.modules()])
    assert not net.module.training and not any(p.requires_grad for p in net.module.parameters())
    assert net.module.stem.weight.data_ptr() == module.stem.weight.data_ptr(), "weights are shared, not copied"


def test_hooks_on_a_clone_are_seen_by_nobody_else(net):
    images = torch.rand(1, 3, 8, 8)
    expected = sp.predict(net, images)
    clone = net.clone()
    clone.stem.register_forward_hook(lambda *_: torch.zeros(1, 4, 6, 6))
    torch.testing.assert_close(sp.predict(net, images), expected)
    torch.testing.assert_close(sp.predict(sp.Network(clone, input_size=(3, 8, 8)), images).shape, expected.shape)


def test_threads_capture_their_own_maps(net):
    images = torch.rand(8, 1, 3, 8, 8)
    alone = [sp.activations(net, image, ["block"])["block"] for image in images]
    wrong = []

    def work(index):
        for _ in range(20):
            if not torch.equal(sp.activations(net, images[index], ["block"])["block"], alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fingerprint_names_the_content(module):
    net = sp.Network(module, input_size=(3, 8, 8))
    same = sp.Network(private_copy(module).to(memory_format=torch.channels_last), input_size=(3, 16, 16), name="other")
    assert net.fingerprint == same.fingerprint and len(net.fingerprint) == 16
    with torch.no_grad():
        changed = Tiny()
        changed.load_state_dict(module.state_dict())
        changed.stem.weight[0, 0, 0, 0] += 1e-6
    assert sp.Network(changed, input_size=(3, 8, 8)).fingerprint != net.fingerprint


@pytest.mark.parametrize("size", [(334, 257), (331, 257), (333, 257), (257, 331)])
def test_view_is_what_torchvision_would_feed(size):
    """To the pixel where the margin is even; an odd one is halved as ``expected_top1.csv`` wants it."""
    from torchvision.transforms import Resize
    from torchvision.transforms.functional import center_crop, crop, to_tensor

    image = Image.effect_noise(size, 80).convert("RGB")
    net = sp.Network(nn.Conv2d(3, 1, 1), input_size=(3, 224, 224))
    resized = Resize(256)(image)
    margins = [side - 224 for side in resized.size]
    left, top = (margin - round(margin / 2) for margin in margins)
    torch.testing.assert_close(net.view(image), to_tensor(crop(resized, top, left, 224, 224)), atol=0, rtol=0)
    if all(margin % 2 == 0 for margin in margins):
        torch.testing.assert_close(net.view(image), to_tensor(center_crop(resized, [224, 224])), atol=0, rtol=0)


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (4, 20, 40), (13, 40, 20), (2, 9, 9)])
def test_view_fits_every_input(size):
    net = sp.Network(nn.Conv2d(size[0], 1, 1), input_size=size)
    seen = net.view(Image.new("RGB", (50, 31), (255, 0, 0)))
    assert seen.shape == size and seen.min() >= 0 and seen.max() <= 1


@pytest.mark.parametrize(
    ("text", "unit"),
    [("a:1", ("a", 1, None)), ("x.0#2:7@3,4", ("x.0#2", 7, (3, 4))), ("a:b:0", ("a:b", 0, None))],
)
def test_units_read_back(text, unit):
    assert sp.Unit.parse(text) == sp.Unit(*unit) and str(sp.Unit(*unit)) == text


@pytest.mark.parametrize("text", ["", "a", "a:", "a:-1", "a:1@2", "a:1@2,x"])
def test_units_that_are_none_say_how_they_are_written(text):
    with pytest.raises(sp.SpError, match=r"layer:channel"):
        sp.Unit.parse(text)


def test_messages_name_value_and_rule(net):
    with pytest.raises(sp.SpError, match=r"'block.cnv1' is not one of the 7 layers of tiny; try block.conv1"):
        net.layer("block.cnv1")
    with pytest.raises(sp.SpError, match=r"channels 0 to 3; got 4"):
        net.check(sp.Unit("stem", 4))
    with pytest.raises(sp.SpError, match=r"positions 0,0 to 5,5; got 6,0"):
        net.check(sp.Unit("stem", 0, (6, 0)))
    with pytest.raises(sp.SpError, match=r"classes 0 to 4; got 5"):
        net.check_class(5)
    with pytest.raises(sp.SpError, match=r"\[n, 3, h, w\] for tiny; got \[2, 1, 8, 8\]"):
        sp.predict(net, torch.zeros(2, 1, 8, 8))
    with pytest.raises(sp.SpError, match=r"does not run on an input of 3×2×2"):
        _ = sp.Network(Tiny(), input_size=(3, 2, 2)).layers
    with pytest.raises(sp.SpError, match=r"`std` must be above 0"):
        sp.Network(Tiny(), std=(0.1, 0.0, 0.2))
    with pytest.raises(sp.SpError, match=r"one number a channel \(3\); got 1"):
        sp.Network(Tiny(), mean=(0.5,))


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5"])
def test_layers_of_real_architectures_match_a_real_forward(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    net = sp.Network(module, name=name, input_size=(3, 64, 64))
    shapes = {}

    def note(path):
        def hook(_module, _inputs, output):
            shapes.setdefault(path, tuple(output.shape[1:]))

        return hook

    for path, part in module.named_modules():
        part.register_forward_hook(note(path))
    with torch.no_grad():
        module(torch.rand(1, 3, 64, 64))
    for layer in net.layers:
        if layer.call == 1:
            assert shapes[layer.name] == layer.output_shape
