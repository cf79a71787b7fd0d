import copy
import warnings

import pytest
import torch
from captum.attr import LRP, IntegratedGradients, LayerGradCam, NoiseTunnel, Occlusion, Saliency
from references import classifier
from torch import nn

import sp_core as sp
from sp_core.attribution import attribution_steps, importance, record_count
from sp_core.errors import NeedsGraph
from sp_core.methods import BATCH, METHODS, TITLES, Job, blurred, cam_layer
from sp_core.relevance import check_rules, relevance, without_rule
from sp_core.targets import Aim


def make(activation=nn.ReLU, seed=3, **options):
    torch.manual_seed(seed)
    module = nn.Sequential(
        *[nn.Conv2d(3, 6, 3, padding=1), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), activation()],
        *[nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)],
    )
    return sp.Network(module, name="small", input_size=(3, 12, 12), **options)


NET = make(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(4))
FAST = {"integrated_gradients": {"steps": 8}, "smoothgrad": {"samples": 4}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [2, "3:1", "4:0@2,3"])
def test_every_method_for_classes_and_units(method, target):
    before = NET.fingerprint, [p._version for p in NET.module.parameters()]
    if method == "lrp" and target != 2:
        with pytest.raises(sp.SpError, match="LRP starts from a class"):
            sp.attribute(NET, IMAGES, target, method)
        return
    answer = sp.attribute(NET, IMAGES, target, method, **FAST.get(method, {}))
    assert answer.map.shape[0] == 2
    assert answer.map.shape[1] in (1, 3)
    assert answer.map.shape[2:] == (12, 12)
    assert importance(answer).shape == (2, 12, 12)
    assert answer.map.any() or answer.notes
    assert answer.method in TITLES
    assert not answer.map.requires_grad
    ones = torch.cat([sp.attribute(NET, image, target, method, **FAST.get(method, {})).map for image in IMAGES])
    assert torch.allclose(answer.map, ones, atol=1e-6)
    assert all(not part._forward_hooks and not part._backward_hooks for part in NET.module.modules())
    assert before == (NET.fingerprint, [p._version for p in NET.module.parameters()])


def test_integrated_gradients_add_up_and_say_by_how_much():
    black = sp.predict(NET, torch.zeros(1, 3, 12, 12))[0, 2]
    difference = sp.predict(NET, IMAGES)[:, 2] - black
    fine = sp.attribute(NET, IMAGES, 2, "integrated_gradients", steps=256)
    coarse = sp.attribute(NET, IMAGES, 2, "integrated_gradients", steps=3)
    assert torch.allclose(fine.expected.float(), difference, atol=1e-5)
    assert fine.gap.abs().max() < 2e-3 * difference.abs().max() < coarse.gap.abs().max()
    assert torch.allclose(fine.map.double().sum((1, 2, 3)) - fine.expected, fine.gap)


@pytest.mark.parametrize("baseline", ["black", "blurred"])
def test_integrated_gradients_equal_captum(baseline):
    start = torch.zeros_like(IMAGES) if baseline == "black" else blurred(IMAGES)
    theirs = IntegratedGradients(lambda x: NET.module(NET.normalise(x))).attribute(IMAGES, start, target=2, n_steps=20)
    ours = sp.attribute(NET, IMAGES, 2, "integrated_gradients", steps=20, baseline=baseline).map
    assert theirs.abs().max() > 0
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_integrated_gradients_of_a_linear_network_are_weight_times_way_exactly():
    torch.manual_seed(0)
    linear = nn.Linear(12, 2)
    net = sp.Network(nn.Sequential(nn.Flatten(), linear), input_size=(3, 2, 2), mean=(0.5,) * 3, std=(0.25,) * 3)
    image = torch.rand(1, 3, 2, 2)
    answer = sp.attribute(net, image, 1, "integrated_gradients", baseline="mean")
    assert torch.allclose(answer.map.flatten(), linear.weight[1] / 0.25 * (image.flatten() - 0.5), atol=1e-6)
    black = sp.attribute(net, image, 1, "integrated_gradients", baseline="black").map
    assert torch.allclose(black, sp.attribute(net, image, 1, "integrated_gradients", baseline=0.0).map)


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_agrees_with_captum():
    gradient = sp.backprop(NET, IMAGES, 2, "gradient")
    assert torch.allclose(sp.attribute(NET, IMAGES, 2, "smoothgrad", noise=0, samples=20).map, gradient, atol=1e-6)
    ours = sp.attribute(NET, IMAGES[:1], 2, "smoothgrad", noise=0.2, samples=600, seed=1).map
    torch.manual_seed(0)
    width = 0.2 * float(IMAGES[0].max() - IMAGES[0].min())
    tunnel = NoiseTunnel(Saliency(lambda x: NET.module(NET.normalise(x))))
    theirs = tunnel.attribute(
        IMAGES[:1].clone().requires_grad_(), nt_type="smoothgrad", nt_samples=600, stdevs=width, target=2, abs=False
    )
    # Two samples of 600: apart by some 1/sqrt(300) of the spread of single gradients.
    assert (ours - theirs).norm() / theirs.norm() < 0.15
    assert (ours - gradient[:1]).norm() / gradient[:1].norm() > 0.2
    again = sp.attribute(NET, IMAGES[:1], 2, "smoothgrad", noise=0.2, samples=600, seed=1).map
    assert torch.equal(ours, again)


@pytest.mark.parametrize("layer", ["4", "2", "0"])
def test_grad_cam_equals_captum(layer):
    ours = sp.attribute(NET, IMAGES, 2, "grad_cam", layer=layer).map
    clone = NET.clone()
    theirs = LayerGradCam(clone, clone[int(layer)]).attribute(NET.normalise(IMAGES), target=2, relu_attributions=True)
    theirs = torch.nn.functional.interpolate(theirs, size=(12, 12), mode="bilinear", align_corners=False)
    assert theirs.any()
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_grad_cam_chooses_the_last_map_and_says_so():
    assert cam_layer(NET, Aim(None, (0,), (None,))) == "4"
    assert "Grad-CAM at 4: 6×6 positions" in sp.attribute(NET, IMAGES, 2, "grad_cam").notes[0]
    assert cam_layer(NET, Aim("3", (0,), (None,))) == "2"
    with pytest.raises(sp.SpError, match="6 puts out a vector"):
        sp.attribute(NET, IMAGES, 2, "grad_cam", layer="6")
    with pytest.raises(sp.SpError, match="does not depend on 4; choose a layer below"):
        sp.attribute(NET, IMAGES, "3:1", "grad_cam", layer="4")
    with pytest.raises(sp.SpError, match="no layer with positions"):
        sp.attribute(NET, IMAGES, "0:1", "grad_cam")


def test_guided_grad_cam_is_the_product():
    product = sp.backprop(NET, IMAGES, 2) * sp.attribute(NET, IMAGES, 2, "grad_cam").map
    assert torch.allclose(sp.attribute(NET, IMAGES, 2, "guided_grad_cam").map, product, atol=1e-7)


def test_occlusion_equals_captum_where_the_windows_fit():
    ours = sp.attribute(NET, IMAGES, 2, "occlusion", window=4, stride=2).map
    theirs = Occlusion(lambda x: NET.module(NET.normalise(x))).attribute(
        IMAGES,
        (3, 4, 4),
        strides=(3, 2, 2),
        target=2,
        baselines=torch.tensor(NET.mean).view(1, 3, 1, 1).expand(1, 3, 12, 12),
    )
    assert torch.allclose(ours, theirs[:, :1], atol=1e-5)


def test_occlusion_covers_every_pixel_and_finds_the_only_pixel_that_counts():
    class Corner(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 11, 11], x[:, 1, 0, 0]], 1)

    net = sp.Network(Corner(), input_size=(3, 12, 12))
    image = torch.ones(1, 3, 12, 12)
    found = sp.attribute(net, image, 0, "occlusion", window=5, stride=3, colour="black").map[0, 0]
    assert found[11, 11] == 1
    assert found[:7, :].abs().sum() == 0
    assert found.isfinite().all()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Tanh, nn.GELU, nn.SiLU])
def test_lrp_epsilon_by_hand(activation):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), activation(), nn.Linear(6, 3))
    with torch.no_grad():
        module[1].weight *= 12  # some units of ReLU6 are full
    net = sp.Network(module, input_size=(1, 2, 2))
    image = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    first, last = copy.deepcopy(module[1]).double(), copy.deepcopy(module[3]).double()
    x = image.flatten()
    pre = first(x)
    hidden = module[2](pre)
    logits = last(hidden)
    share = hidden * last.weight[1]  # Bach et al. 2015, eq. 58, epsilon to 0: z_ij / z_j times R_j
    wanted = (x * first.weight * (share / pre)[:, None]).sum(0)
    found, logit, biases = relevance(net, image, 1)
    assert torch.allclose(found.flatten(), wanted.detach(), rtol=1e-9)
    assert logit == pytest.approx(float(logits[1].detach()))
    assert biases == pytest.approx(float((last.bias[1] + (share / pre * first.bias).sum()).detach()))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_lrp_equals_captum_where_captum_has_a_rule_for_every_step(activation):
    class Flat(nn.Module):  # captum refuses an nn.Flatten; a module with a part is no leaf, and it passes that by
        def __init__(self):
            super().__init__()
            self.unused = nn.Dropout()

        def forward(self, x):
            return x.flatten(1)

    net = make(activation)
    for image in IMAGES.double().split(1):
        inputs = net.normalise(image).requires_grad_()
        clone = copy.deepcopy(net.clone()).double()  # captum writes to the weights
        clone[6] = Flat()
        theirs = LRP(clone).attribute(inputs, target=2).detach()
        ours, _, _ = relevance(net, image, 2)
        assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_lrp_holds_through_additions_normalisations_and_functions(name):
    net = sp.Network(classifier(name, 64), name=name, input_size=(3, 64, 64))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    answer = sp.attribute(net, image, 3, "lrp")
    assert answer.map.any()
    assert abs(float(answer.gap[0])) < 1e-4 * float(answer.map.abs().sum())
    assert "of which the biases hold" in answer.notes[0]


def test_lrp_refuses_where_the_shares_do_not_add_up():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.flat, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(432, 2)

        def forward(self, x):
            return self.last(self.flat(x * torch.sigmoid(self.conv(x))))

    net = sp.Network(Gated(), name="gated", input_size=(3, 12, 12))
    with pytest.raises(sp.SpError, match=r"LRP does not apply to gated: the shares of pixels and biases add up to .* "):
        sp.attribute(net, IMAGES, 1, "lrp")


def test_lrp_names_what_it_cannot_before_anything_runs():
    class Never(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.norm = nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.GroupNorm(2, 4)

        def forward(self, x):
            raise AssertionError("it ran")

    net = sp.Network(Never(), name="never", input_size=(3, 12, 12))
    assert without_rule(net) == ("GroupNorm", "Sigmoid")
    with pytest.raises(sp.SpError, match=r"LRP does not apply to never: .* here GroupNorm, Sigmoid\. Choose"):
        check_rules(net)
    assert without_rule(NET) == ()


def test_memory_is_bounded_by_chunks(monkeypatch):
    seen = []
    scores = Job.scores
    monkeypatch.setattr(Job, "scores", lambda self, variants: seen.append(len(variants)) or scores(self, variants))
    for method, settings in [
        ("integrated_gradients", {"steps": 100}),
        ("smoothgrad", {"samples": 100}),
        ("occlusion", {"window": 3, "stride": 1}),
    ]:
        sp.attribute(NET, IMAGES[:1], 1, method, **settings)
    assert max(seen) == BATCH
    assert sum(seen) == 100 + 1 + 100 + 100


def test_progress_is_bounded_and_ends_with_the_answer():
    steps = list(attribution_steps(NET, IMAGES, 1, "occlusion", window=3, stride=1))
    assert len(steps) == 2 * -(-100 // BATCH) + 1
    assert [step.answer is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert len(list(attribution_steps(NET, IMAGES[:1], 1, "occlusion"))) == record_count(NET, "occlusion")
    for method in set(METHODS) - {"occlusion"}:
        assert len(list(attribution_steps(NET, IMAGES[:1], 1, method))) == record_count(NET, method), method
    fractions = [step.done / step.total for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_what_is_odd_is_said():
    dead = copy.deepcopy(NET.module)
    with torch.no_grad():
        dead[3].bias.fill_(-100.0)  # nothing of the image reaches the logits
    net = sp.Network(dead, input_size=(3, 12, 12))
    assert "zero everywhere" in " ".join(sp.attribute(net, IMAGES, 1, "occlusion").notes)
    with torch.no_grad():
        dead[7].weight.fill_(float("inf"))
    assert "not finite" in " ".join(sp.attribute(net, IMAGES, 1, "smoothgrad", samples=2).notes)
    with pytest.raises(sp.SpError, match="no rectifier"):
        sp.attribute(make(nn.GELU), IMAGES, 1, "guided_grad_cam")


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("magic", {}, "`method` must be one of gradient.*got 'magic'"),
        ("occlusion", {"size": 3}, "occlusion has the settings window, stride, colour; got 'size'"),
        ("guided", {"size": 3}, "guided has no settings; got 'size'"),
        ("occlusion", {"window": 13}, "`window` must be at most 12.*got 13"),
        ("occlusion", {"window": 3, "stride": 4}, "`stride` must be at most the window"),
        ("integrated_gradients", {"steps": 1}, "`steps` must be at least 2; got 1"),
        ("integrated_gradients", {"baseline": "pink"}, "got 'pink'"),
        ("smoothgrad", {"samples": 0}, "`samples` must be at least 1; got 0"),
    ],
)
def test_errors(method, settings, message):
    with pytest.raises(sp.SpError, match=message):
        sp.attribute(NET, IMAGES, 1, method, **settings)


def test_works_inside_inference_mode():
    with torch.inference_mode(), warnings.catch_warnings():
        inside = sp.attribute(NET, IMAGES, 2, "integrated_gradients", steps=8).map
    assert torch.allclose(inside, sp.attribute(NET, IMAGES, 2, "integrated_gradients", steps=8).map)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_weights_only_says_that_it_needs_a_graph(method):
    from sp_core.checkpoints.loose import loose

    tensors = {"conv.weight": torch.rand(4, 3, 3, 3), "conv.bias": torch.rand(4)}
    net = sp.Network(loose(tensors, of="a file"), confidence="weights-only", input_size=(3, 12, 12))
    with pytest.raises(NeedsGraph, match="only the weights are known"):
        sp.attribute(net, IMAGES, 0, method)
    with pytest.raises(NeedsGraph, match="only the weights are known"):
        sp.backprop(net, IMAGES, "conv:1", "gradient")
