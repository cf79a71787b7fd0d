"""DeepDream: the layer's objective rises, the picture keeps its size, octaves and tiles fit."""

import weakref

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.synthesis import DreamSettings, deepdream, dream
from sp_core.synthesis.objectives import Probe, channel, guided_by, whole_layer
from tests.test_synthesis import last, tiny, untouched


def convolutional(seed=0, **options):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return Network(module, name="convolutional", input_size=(3, 32, 32), **options)


def picture(h=48, w=64):
    torch.manual_seed(2)
    return F.interpolate(torch.rand(1, 3, 6, 8), (h, w), mode="bilinear")[0]


def measured(net, image, objective):
    maps = nn.Sequential(*list(net.module)[: int(next(iter(objective.layers))) + 1])(net.normalise(image[None]))
    return objective(Probe({next(iter(objective.layers)): maps})).item()


@pytest.mark.parametrize("target", ["4", "3:5", "7:1", channel("3", 2), None])
def test_dream_raises_the_objective_and_keeps_the_size(target):
    net, image = convolutional(), picture()
    final = last(dream(net, image, DreamSettings(target=target, steps=4)))
    assert final.image.shape == image.shape and final.image.dtype == torch.float32
    assert final.image.min() >= 0 and final.image.max() <= 1
    if target == "4":
        assert measured(net, final.image, whole_layer("4")) > 1.3 * measured(net, image, whole_layer("4"))
    if target == "3:5":
        assert measured(net, final.image, channel("3", 5)) > measured(net, image, channel("3", 5)) + 0.01


def test_every_step_is_reported():
    steps = list(dream(convolutional(), picture(), DreamSettings(target="4", steps=3)))
    assert [record.step for record in steps] == list(range(1, 7))
    assert {(record.steps, record.octaves) for record in steps} == {(6, 2)}
    assert [record.octave for record in steps] == [1, 1, 1, 2, 2, 2]
    assert [tuple(record.image.shape[1:]) for record in steps] == [(34, 46)] * 3 + [(48, 64)] * 3
    assert steps[0].name == "4" and steps[2].objective > steps[0].objective


def test_one_step_by_hand():
    """One octave, one step, no jitter: image + strength / 255 · g / mean |g|."""
    net, image = convolutional(), picture()
    settings = DreamSettings(target="4", octaves=1, steps=1, jitter=0, strength=2, precision="float32")
    x = image.clone()[None].requires_grad_()
    value = nn.Sequential(*list(net.module)[:5])(x).square().mean() / 2
    gradient = torch.autograd.grad(value, x)[0]
    expected = (image + 2 / 255 * gradient[0] / gradient.abs().mean()).clamp(0, 1)
    (only,) = dream(net, image, settings)
    assert torch.allclose(only.image, expected, atol=1e-5)
    assert only.objective == pytest.approx(value.item(), rel=1e-5)


def test_octaves_by_hand():
    sizes = deepdream.octave_sizes
    assert sizes((224, 224), DreamSettings(octaves=3, scale=2)) == [(56, 56), (112, 112), (224, 224)]
    assert sizes((64, 64), DreamSettings()) == [(33, 33), (46, 46), (64, 64)]
    assert sizes((20, 90), DreamSettings()) == [(20, 90)]
    assert len(sizes((1000, 1500), DreamSettings())) == 5


def test_detail_is_carried_from_octave_to_octave():
    """With almost no change in the last octave the result still differs from the picture: by the first one's detail."""
    net, image = convolutional(), picture()
    records = list(dream(net, image, DreamSettings(target="4", octaves=2, steps=8, strength=3, jitter=0)))
    small = F.interpolate(image[None], records[7].image.shape[1:], mode="bilinear", antialias=True)[0]
    detail = F.interpolate((records[7].image - small)[None], image.shape[1:], mode="bilinear", antialias=True)[0]
    change = records[8].image - image
    assert torch.corrcoef(torch.stack([detail.flatten(), change.flatten()]))[0, 1] > 0.8


def test_same_seed_same_dream_and_no_global_generator():
    state = torch.random.get_rng_state()
    net = convolutional()
    state = torch.random.get_rng_state()
    first, second = (last(dream(net, picture_, DreamSettings(steps=2))) for picture_ in (picture(), picture()))
    torch.random.set_rng_state(state)
    image = torch.full((3, 40, 40), 0.5) + torch.linspace(-0.2, 0.2, 40)
    third = last(dream(net, image, DreamSettings(steps=2, seed=1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.image, second.image)
    assert not torch.equal(third.image, last(dream(net, image, DreamSettings(steps=2, seed=2))).image)


def test_tiles_leave_no_seam_and_almost_the_same_gradient():
    """Away from the edges of tiles the gradient is that of the whole picture, for a channel (a mean over positions)."""
    net, image = convolutional(), picture(128, 160)
    # Flat areas give a maximum in many places at once, and rounding, which differs with the size, chooses one.
    image = (image + 0.02 * torch.randn(image.shape)).clamp(0, 1)
    whole = DreamSettings(target="3:5", octaves=1, steps=1, jitter=0, tile=160)
    tiled = DreamSettings(target="3:5", octaves=1, steps=1, jitter=0, tile=64)
    one, many = (next(iter(dream(net, image, settings))) for settings in (whole, tiled))
    assert one.objective == pytest.approx(many.objective, rel=0.05)
    away = (one.image - image)[:, 8:56, 8:46], (many.image - image)[:, 8:56, 8:46]  # tiles end at 64 and at 53
    assert torch.corrcoef(torch.stack([away[0].flatten(), away[1].flatten()]))[0, 1] > 0.99


def test_no_tile_is_larger_than_asked_for():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape[2:]))
            return x

    net = Network(nn.Sequential(Watch(), nn.Conv2d(3, 4, 3)), input_size=(3, 32, 32))
    last(dream(net, torch.rand(3, 150, 331), DreamSettings(target="1", octaves=2, steps=1, tile=64)))
    real = {shape for shape in seen if shape != (32, 32)}
    assert max(max(shape) for shape in real) <= 64 and min(min(shape) for shape in real) > 32


class Held(TorchDispatchMode):
    """The largest tensor that is made, and how many tensors as large as the picture are held at once."""

    def __init__(self, size):
        super().__init__()
        self.size, self.largest, self.most = size, 0, 0
        self.seen = weakref.WeakValueDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
                if tensor.numel() >= self.size:
                    self.seen[id(tensor)] = tensor
        self.most = max(self.most, len({tensor.data_ptr() for tensor in self.seen.values()}))
        return out


@pytest.mark.parametrize("side", [160, 320])
def test_memory_grows_only_by_the_pictures_own_buffers(side):
    """However large the picture, nothing larger than it is made, and only a handful of its size are held."""
    image = torch.rand(3, side, side)
    settings = DreamSettings(target="4", octaves=2, steps=2, tile=64)
    with Held(image.numel()) as held:
        last(dream(convolutional(), image, settings))
    assert held.largest == image.numel() and 3 <= held.most <= 8


def test_large_pictures_are_made_smaller_and_it_is_said():
    final = last(dream(convolutional(), torch.rand(3, 100, 200), DreamSettings(steps=1, max_pixels=5000)))
    assert final.image.shape == (3, 50, 100)
    assert "200×100 was made smaller, 100×50" in final.note


def test_the_default_layer_computes_something():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Dropout(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2))
    assert deepdream.default_layer(Network(module, input_size=(3, 32, 32))) == "0"
    only = Network(nn.Sequential(nn.AvgPool2d(2)), input_size=(3, 32, 32))
    assert deepdream.default_layer(only) == "0", "rather a pooling than none"


def test_a_pil_picture_and_a_guide():
    net = convolutional()
    image = Image.effect_mandelbrot((60, 50), (-2, -1, 1, 1), 20).convert("RGB")
    guide = Image.linear_gradient("L").convert("RGB")
    guided = last(dream(net, image, DreamSettings(target="4", steps=2), guide=guide))
    free = last(dream(net, image, DreamSettings(target="4", steps=2)))
    assert guided.image.shape == (3, 50, 60) and guided.name == "4 like the guide"
    assert not torch.equal(guided.image, free.image)


def test_guide_objective_by_a_loop():
    value, guide = torch.randn(1, 4, 3, 5).double(), torch.randn(4, 2, 2).double()
    total = 0.0
    for y in range(3):
        for x in range(5):
            total += max((value[0, :, y, x] @ guide[:, a, b]).item() for a in range(2) for b in range(2))
    assert guided_by("a", guide)(Probe({"a": value})).item() == pytest.approx(total / 15)


def test_octaves_that_are_too_small_are_left_out_and_it_is_said():
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 41)), input_size=(3, 64, 64))
    final = last(dream(net, torch.rand(3, 64, 64), DreamSettings(target="0", steps=1)))
    assert final.octaves == 2 and "1 of 3 octaves are too small for this layer and are left out" in final.note


def test_stopping_leaves_nothing():
    net = tiny()
    before = untouched(net)
    steps = dream(net, picture(), DreamSettings(target="4"))
    next(steps), next(steps)
    steps.close()
    assert untouched(net) == before


def test_no_gradient_is_said():
    conv = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        conv.bias.fill_(-100)
    net = Network(nn.Sequential(conv, nn.ReLU()), input_size=(3, 16, 16))
    with pytest.raises(SpError, match="1 has no gradient anywhere on this picture"):
        last(dream(net, picture(), DreamSettings(target="1", steps=1)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "'nowhere' is not one of the"),
        ("4:9", "Layer 4 has channels 0 to 4; got 9"),
        ("4:1@2,2", "a unit has no fixed position; leave it out of 4:1@2,2"),
        ("6:1", r"tiny does not run on 48×64 pixels up to 6:1; choose a layer before the fully connected ones"),
    ],
)
def test_bad_targets(target, message):
    with pytest.raises(SpError, match=message):
        dream(tiny(), picture(), DreamSettings(target=target))


def test_bad_pictures():
    with pytest.raises(SpError, match=r"The image must be \[3, h, w\] for tiny; got \[1, 8, 8\]"):
        dream(tiny(), torch.rand(1, 8, 8))
    with pytest.raises(SpError, match=r"values in \[0, 1\]"):
        dream(tiny(), torch.rand(3, 8, 8) * 255)
    with pytest.raises(SpError, match="With a guide image the target must be a layer; got the unit 4:1"):
        dream(tiny(), picture(), DreamSettings(target="4:1"), guide=picture())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octaves": 0}, r"`octaves` must be a whole number from 1 to 12; got 0"),
        ({"scale": 1.0}, r"`scale` must be a number from 1.1 to 3; got 1.0"),
        ({"steps": 101}, r"`steps` must be a whole number from 1 to 100; got 101"),
        ({"strength": "much"}, r"`strength` must be a number from 0.01 to 20; got 'much'"),
        ({"tile": 32}, r"`tile` must be a whole number from 64 to 1024; got 32"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(SpError, match=message):
        DreamSettings(**options)
