"""Gradient ascent: objectives rise, settings are checked, the network is left as it was found."""

import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.synthesis import AscentSettings, Direction, ascend, objectives
from sp_core.synthesis.objectives import Probe, channel, class_logit, diversity, guided_by, neuron, whole_layer
from sp_core.synthesis.plan import make_plan
from sp_core.synthesis.rectifiers import BeforeReLU, redirect

SHORT = AscentSettings(steps=12, size=16)


class Functional(nn.Module):
    """Rectifies without a ReLU module, once in place; ends in a softmax."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Linear(4, 3)
        self.block, self.softmax = Rectified(), nn.Softmax(1)

    def forward(self, x):
        x = F.relu(self.conv1(x), inplace=True)
        x = self.block(self.conv2(x))
        return self.softmax(self.fc(x.mean((2, 3))))


class Rectified(nn.Module):
    def forward(self, x):
        return F.relu_(x * 1)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 4),
    )  # fmt: skip
    return Network(module, name="tiny", input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, **options)


def last(steps):
    return list(steps)[-1]


def assert_ascends(goal, net=None, sign=1, **options):
    net = net or tiny()
    settings = AscentSettings(steps=options.pop("steps", 24), sign=sign, **options)
    records = list(ascend(net, goal, settings))
    final = records[-1]
    assert final.last and final.step == len(records) == settings.steps
    assert final.images.dtype == torch.float32 and final.images.min() >= 0 and final.images.max() <= 1
    assert not any(final.messages), final.messages
    gain = sign * (final.activation - records[0].activation)
    assert (gain > 0.04).all(), f"{final.names}: {records[0].activation} -> {final.activation}"


def test_channel_rises():
    assert_ascends("1:2")


def test_channel_of_a_later_layer_rises():
    assert_ascends(Unit("3", 4))


def test_neuron_rises():
    assert_ascends("4:1@3,5")


def test_centre_unit_rises():
    assert_ascends("4:1", position="centre")


def test_class_rises():
    assert_ascends(2)


def test_numpy_class_rises():
    assert_ascends(torch.tensor(2))


def test_element_of_a_vector_rises():
    assert_ascends("6:1")


def test_direction_rises():
    assert_ascends(Direction("3", torch.tensor([1.0, -1, 0, 0, 2])))


def test_layer_rises():
    assert_ascends(whole_layer("4"), steps=48)


def test_difference_rises():
    assert_ascends(channel("3", 0) - 0.5 * channel("3", 1))


def test_sum_rises():
    assert_ascends(channel("3", 0) + channel("0", 1))


def test_several_units_of_several_layers_rise_together():
    assert_ascends(["1:2", "4:4", Unit("3", 4), 2])


def test_copies_rise():
    assert_ascends(["3:4", "1:2"], copies=3, diversity=0.2)


def test_pixels_rise():
    assert_ascends("3:4", parametrisation="pixel")


def test_maco_rises():
    assert_ascends("3:4", parametrisation="maco")


def test_negative_channel_falls():
    assert_ascends("3:4", sign=-1)


def test_negative_optimum_goes_below_a_relu():
    assert_ascends("4:4", sign=-1)
    assert last(ascend(tiny(), "4:4", AscentSettings(steps=24, sign=-1))).peak.item() < 0


def test_functional_network_rises_and_falls():
    torch.manual_seed(0)
    net = Network(Functional(), input_size=(3, 12, 12))
    assert_ascends(["conv1:1", "block:2", "block:2@3,3", 1], net, learning_rate=0.1, steps=48)
    assert_ascends("block:2", net, sign=-1, steps=64, learning_rate=0.1)


# --- objectives ---


def maps(n=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, 4, 4, generator=generator, dtype=torch.float64)


GUIDE = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ALL = {
    "channel": channel("a", 2),
    "neuron": neuron("a", 1, (0, 3)),
    "centre": neuron("a", 1),
    "direction": objectives.direction(Direction("a", torch.arange(5.0) - 1.5)),
    "layer": whole_layer("a"),
    "guide": guided_by("a", GUIDE),
    "diversity": diversity("a"),
    "combination": 2 * channel("a", 0) - neuron("a", 1) * 0.5 + channel("a", 3),
}


@pytest.mark.parametrize("name", ALL)
def test_gradient_by_perturbation(name):
    """Central differences of the objective against autograd, in float64, for every element of the map."""
    value, objective, step = maps().requires_grad_(), ALL[name], 1e-6
    out = objective(Probe({"a": value}))
    assert out.shape == (2,)
    gradient = torch.autograd.grad(out.sum(), value, allow_unused=True)[0]
    measured = torch.zeros_like(gradient).flatten()
    for index in range(value.numel()):
        moved = [value.detach().flatten().clone() for _ in range(2)]
        moved[0][index] += step
        moved[1][index] -= step
        high, low = (objective(Probe({"a": m.view_as(value)})).sum() for m in moved)
        measured[index] = (high - low) / (2 * step)
    assert torch.allclose(measured.view_as(gradient), gradient, atol=1e-7)


def test_values_are_the_written_ones():
    value = maps()
    probe = Probe({"a": value, "out": torch.tensor([[1.0, 5.0], [7.0, 2.0]])})
    assert torch.equal(channel("a", 2)(probe), value[:, 2].mean((1, 2)))
    assert torch.equal(neuron("a", 1, (0, 3))(probe), value[:, 1, 0, 3])
    assert torch.equal(neuron("a", 1)(probe), value[:, 1, 2, 2])
    assert torch.equal(class_logit(1, layer="out")(probe), torch.tensor([5.0, 2.0]))
    direction = objectives.direction(Direction("a", torch.tensor([0, 0, 3.0, 0, 0])))  # its length does not count
    assert torch.allclose(direction(probe), value[:, 2].mean((1, 2)))


def test_gradient_of_the_layer_objective_is_the_activation():
    value = maps().requires_grad_()
    gradient = torch.autograd.grad(whole_layer("a")(Probe({"a": value})).sum(), value)[0]
    assert torch.allclose(gradient * 5 * 16, value)


def test_diversity_is_worst_for_equal_images_and_best_for_orthogonal_ones():
    one = maps(1)
    assert torch.allclose(diversity("a")(Probe({"a": one.expand(3, -1, -1, -1)})), torch.tensor(-1.0).double())
    assert diversity("a")(Probe({"a": one})).item() == 0
    apart = torch.zeros(2, 2, 1, 1)
    apart[0, 0], apart[1, 1] = 1, 1
    assert diversity("a")(Probe({"a": apart})).tolist() == [0, 0]


def test_names_are_readable():
    assert (channel("layer3", 7) - 0.5 * channel("layer3", 9)).name == "layer3:7 − (0.5 × layer3:9)"
    assert (2 * (channel("a", 1) + channel("b", 2))).name == "2 × (a:1 + b:2)"
    assert (-neuron("a", 1, (2, 3))).name == "−a:1@2,3"
    net = tiny(classes=("cat", "dog", "eel", "fox"))
    plan = make_plan(net, ["4:1", 2, "dog", Direction("3", torch.ones(5), "smile")], AscentSettings())
    assert plan.names == ("4:1", "class 2 (eel)", "class 1 (dog)", "smile")


def test_an_unnamed_class_is_called_by_its_number():
    assert make_plan(tiny(), [2], AscentSettings()).names == ("class 2",)


def test_class_is_the_logit_before_the_softmax():
    net = Network(Functional(), input_size=(3, 12, 12))
    assert make_plan(net, 1, AscentSettings()).layers == {"fc"}
    assert make_plan(tiny(), 1, AscentSettings()).layers == {""}


# --- behaviour ---


def test_same_seed_same_picture_bit_for_bit():
    settings = AscentSettings(steps=10, seed=5)
    torch.manual_seed(1)
    first = last(ascend(tiny(), "3:4", settings))
    net, state = tiny(), torch.random.get_rng_state()
    second = last(ascend(net, "3:4", settings))
    assert torch.equal(first.images, second.images) and torch.equal(first.activation, second.activation)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was used"
    other = last(ascend(net, "3:4", AscentSettings(steps=10, seed=6)))
    assert (other.images - first.images).abs().max() > 0.01


def test_a_units_picture_does_not_depend_on_its_neighbours():
    together = last(ascend(tiny(), ["3:1", "3:4"], AscentSettings(steps=6)))
    alone = last(ascend(tiny(), "3:4", AscentSettings(steps=6)))
    assert torch.allclose(together.images[1], alone.images[0], atol=1e-4)


def test_three_threads_equal_the_serial_results():
    net = tiny()
    image = torch.rand(1, 3, 16, 16)

    def plain():
        for _ in range(20):
            x = image.clone().requires_grad_()
            gradient = torch.autograd.grad(net.module(net.normalise(x))[0, 1], x)[0]
        return gradient

    jobs = {
        "a": lambda: last(ascend(net, "4:1", AscentSettings(steps=20))).images,
        "b": lambda: last(ascend(net, "1:3", AscentSettings(steps=20, sign=-1))).images,
        "c": plain,
    }
    serial = {name: job() for name, job in jobs.items()}
    found: dict[str, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda n=n, j=j: found.update({n: j()})) for n, j in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[name], serial[name]) for name in jobs)


def untouched(net):
    return [
        (name, part.training, getattr(part, "inplace", None), len(part._forward_hooks), len(part._backward_hooks))
        for name, part in net.module.named_modules()
    ] + [(name, p.grad is None, p.requires_grad, p.detach().clone().sum().item()) for name, p in
         net.module.named_parameters()]  # fmt: skip


def test_stopping_after_two_steps_leaves_nothing():
    net = tiny()
    before = untouched(net)
    steps = ascend(net, ["4:1", 2], SHORT)
    next(steps), next(steps)
    steps.close()
    assert untouched(net) == before and torch.is_grad_enabled()


def test_network_is_left_as_found_also_after_an_error():
    net = tiny()
    before = untouched(net)
    bad = objectives.Objective("bad", frozenset({"4"}), lambda t: t("4").mean())
    with pytest.raises(SpError, match=r"one number an image; bad gives \[\]"):
        last(ascend(net, bad, SHORT))
    last(ascend(net, "4:2", SHORT))
    assert untouched(net) == before


def test_runs_where_gradients_are_switched_off():
    expected = last(ascend(tiny(), "3:4", SHORT)).images
    with torch.no_grad():
        assert torch.equal(last(ascend(tiny(), "3:4", SHORT)).images, expected)
        assert not torch.is_grad_enabled()
    net = tiny()
    with torch.inference_mode():
        assert torch.equal(last(ascend(net, "3:4", SHORT)).images, expected)


def test_the_last_activation_is_measured_on_the_picture_itself():
    net = tiny()
    final = last(ascend(net, "3:4", AscentSettings(steps=5)))
    from sp_core.capture import activations

    found = activations(net, final.images, ["3"])["3"][:, 4]
    assert torch.allclose(final.activation, found.mean((1, 2)), atol=1e-5)
    assert torch.allclose(final.peak, found.amax((1, 2)), atol=1e-5)


def test_percentile_counts_real_activations_below_the_peak():
    final = last(ascend(tiny(), ["3:4", "3:1"], SHORT, reference=torch.tensor([[-9.0, -8, 1e9, 1e9], [1e9] * 4])))
    assert final.percentile.tolist() == [50, 0]
    assert last(ascend(tiny(), "3:4", AscentSettings(steps=2, sign=-1), reference=torch.ones(4))).percentile is None
    with pytest.raises(SpError, match=r"`reference` must be \[k\] or \[2, k\]; got \[3, 4\]"):
        ascend(tiny(), ["3:4", "3:1"], SHORT, reference=torch.ones(3, 4))


def test_start_from_a_picture():
    picture = torch.rand(3, 16, 16) * 0.8 + 0.1
    first = next(iter(ascend(tiny(), "3:4", SHORT, start=picture)))
    assert (first.images[0] - picture).abs().mean() < 0.01
    with pytest.raises(SpError, match=r"`start` must be images with values in \[0, 1\]"):
        ascend(tiny(), "3:4", SHORT, start=picture * 300)


def test_one_channel_network():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), input_size=(1, 13, 17))
    assert_ascends("1:2", net)
    assert last(ascend(net, "1:2", AscentSettings(steps=2))).images.shape == (1, 1, 13, 17)


def test_double_precision_network():
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)).double(), input_size=(3, 9, 9))
    assert last(ascend(net, "0:1", AscentSettings(steps=2))).images.dtype == torch.float32


# --- what ReLUs hide ---


def hidden(bias):
    """A unit that is shut at the start: -|…| + contrast. It opens where the picture becomes bright enough."""
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight.fill_(4.0)
        conv.bias.fill_(bias)
    return Network(nn.Sequential(conv, nn.ReLU()), name="hidden", input_size=(1, 8, 8))


def test_redirected_relu_revives_a_dead_start():
    net = hidden(-2.6)  # at middle grey 4 × 0.5 - 2.6 < 0: no gradient anywhere
    without = last(ascend(net, "1:0", AscentSettings(steps=40, redirect=0)))
    assert without.activation.item() == 0
    revived = last(ascend(net, "1:0", AscentSettings(steps=40, redirect=16)))
    assert revived.activation.item() > 0.1 and revived.messages == ("",)


def test_a_dead_unit_says_so_and_stops_early():
    records = list(ascend(hidden(-9.0), "1:0", AscentSettings(steps=100)))
    assert records[-1].step == 32 and records[-1].last
    assert (
        "1:0 did not take off: after 32 steps it is 0 and its gradient is 0 at every pixel" in records[-1].messages[0]
    )


def test_a_short_run_of_a_dead_unit_says_so_too():
    final = last(ascend(hidden(-9.0), "1:0", AscentSettings(steps=3, redirect=0)))
    assert "did not take off" in final.messages[0]


def test_one_dead_unit_does_not_stop_the_others():
    net = tiny()
    conv = nn.Conv2d(3, 2, 3)
    with torch.no_grad():
        conv.weight[0].zero_()
        conv.bias.zero_()
    net = Network(nn.Sequential(conv), input_size=(3, 8, 8))
    final = last(ascend(net, ["0:0", "0:1"], AscentSettings(steps=40)))
    assert final.step == 40 and "gradient is 0" in final.messages[0] and final.messages[1] == ""


def test_no_path_is_said():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(torch.ones(x.shape[0], 2))

    final = last(ascend(Network(Blind(), input_size=(3, 8, 8)), "fc:1", AscentSettings(steps=3)))
    assert "no path from it to the picture" in final.messages[0]


def test_nan_is_said():
    module = nn.Sequential(nn.Conv2d(3, 2, 3))
    with torch.no_grad():
        module[0].weight[1] = math.nan
    with pytest.raises(SpError, match="0:1 is NaN or infinite at step 1"):
        last(ascend(Network(module, input_size=(3, 8, 8)), "0:1", SHORT))


def redirected(relu, value, downstream):
    """The gradient at ``value`` of a loss whose gradient at the ReLU's output is ``downstream``."""
    value = torch.tensor(value).requires_grad_()
    loss = (relu(value) * torch.tensor(downstream)).sum()
    assert redirect(loss) == 1
    return torch.autograd.grad(loss, value)[0].tolist()


RELUS = [F.relu, torch.relu, lambda x: x.clamp(min=0), lambda x: F.threshold(x, 0, 0), lambda x: (x * 1).relu_()]


@pytest.mark.parametrize("relu", RELUS)
def test_redirected_gradient_by_hand(relu):
    # First sample: wholly shut, so what would push inputs up (a negative gradient of the loss) passes.
    # Second sample: one input is open and has a gradient, so the ReLU's own gradient stands.
    found = redirected(relu, [[-1.0, -2.0], [1.0, -2.0]], [[3.0, -4.0], [3.0, -4.0]])
    assert found == [[0, -4], [3, 0]]


def test_redirected_gradient_of_relu6_by_hand():
    found = redirected(F.relu6, [[-1.0, 7.0, 8.0], [1.0, 7.0, -1.0]], [[-3.0, -4.0, 5.0], [3.0, 4.0, 5.0]])
    assert found == [[-3, 0, 5], [3, 0, 0]]


def test_before_relu_sees_every_spelling():
    for relu in (F.relu, torch.relu, F.relu6, lambda x: F.relu(x, True), lambda x: F.relu(x, inplace=True), F.relu_,
                 torch.Tensor.relu_, nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()):  # fmt: skip
        value = torch.tensor([-1.0, 2.0])
        with BeforeReLU() as before:
            output = relu(value * 1)
        assert before.of({"a": output, "b": value}).keys() == {"a"}
        assert before.of({"a": output})["a"].tolist() == [-1, 2] and output.tolist() == [0, 2]


# --- sizes and settings ---


def test_size_is_the_shorter_side():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(3, 2, 3)), input_size=(3, 16, 32))
    assert last(ascend(net, "0:0", AscentSettings(steps=1, size=24))).images.shape == (1, 3, 24, 48)
    assert last(ascend(net, "0:0", AscentSettings(steps=1))).images.shape == (1, 3, 16, 32)


def test_a_class_of_a_network_with_flatten_needs_the_whole_input():
    assert last(ascend(tiny(), 1, AscentSettings(steps=1))).images.shape[2:] == (16, 16)
    with pytest.raises(
        SpError, match=r"tiny does not run on 20×20 pixels up to the class scores; its own input is 16×16"
    ):
        ascend(tiny(), 1, AscentSettings(size=20))


def test_positions_belong_to_the_size():
    with pytest.raises(SpError, match=r"On 8×8 pixels layer 3 has positions 0,0 to 3,3; got 5,1"):
        ascend(tiny(), "3:4@5,1", AscentSettings(size=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"`steps` must be a whole number from 1 to 512; got 0"),
        ({"steps": 513}, r"`steps` must be a whole number from 1 to 512; got 513"),
        ({"steps": 2.5}, r"`steps` must be a whole number from 1 to 512; got 2.5"),
        ({"size": 1024}, r"`size` must be a whole number from 8 to 512; got 1024"),
        ({"sign": 0}, r"`sign` must be one of 1, -1; got 0"),
        ({"sign": True}, r"`sign` must be one of 1, -1; got True"),
        ({"parametrisation": "cppn"}, r"`parametrisation` must be one of fourier, pixel, maco; got 'cppn'"),
        ({"learning_rate": math.nan}, r"`learning_rate` must be a number from 0.0001 to 10; got nan"),
        ({"seed": -1}, r"`seed` must be a whole number from 0 to"),
        ({"transforms": 5}, r"`transforms` must be a number from 0 to 4; got 5"),
        ({"copies": 17}, r"`copies` must be a whole number from 1 to 16; got 17"),
        ({"position": "left"}, r"`position` must be one of channel, centre; got 'left'"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(SpError, match=message):
        AscentSettings(**options)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("9:1", "'9' is not one of the"),
        ("4:7", "Layer 4 has channels 0 to 4; got 7"),
        (4, "tiny has classes 0 to 3; got 4"),
        (2.5, "A goal is a class number"),
        (True, "A goal is a class number"),
        ([], "Between 1 and 64 pictures are made at once; got 0"),
        (["4:1"] * 65, "Between 1 and 64 pictures are made at once; got 65"),
        (channel("nowhere", 1), "'nowhere' is not one of the"),
    ],
)
def test_bad_goals(goal, message):
    with pytest.raises(SpError, match=message):
        ascend(tiny(), goal)


def test_bad_directions():
    with pytest.raises(SpError, match="not all zero"):
        Direction("3", torch.zeros(5))
    with pytest.raises(SpError, match="3 has 5 channels; the direction has 4 numbers"):
        last(ascend(tiny(), Direction("3", torch.ones(4)), SHORT))
