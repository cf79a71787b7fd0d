"""Widths, depths and groups that have no name of their own, and architectures written as text."""

import pytest
import torch
from torch import nn
from torchvision import models

from sp_core import zoo
from sp_core.checkpoints import catalogue
from sp_core.checkpoints.expression import parsed, written
from sp_core.checkpoints.feeding import of_verdict
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.inferred import proposals
from sp_core.checkpoints.read import Checkpoint
from sp_core.errors import SpError
from tests.test_identify import checkpoint, empty


def made(build, *args, **options) -> nn.Module:
    with catalogue.empty_on_meta():
        return build(*args, **options)


def zeros(module: nn.Module) -> dict:
    return {key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in module.state_dict().items()}


@pytest.mark.parametrize(
    ("architecture", "build", "options"),
    [
        ("torchvision:mobilenet_v2(width_mult=0.35)", models.mobilenet_v2, {"width_mult": 0.35}),
        ("torchvision:mobilenet_v2(width_mult=1.4)", models.mobilenet_v2, {"width_mult": 1.4}),
        ("torchvision:mobilenet_v3_large(width_mult=0.75)", models.mobilenet_v3_large, {"width_mult": 0.75}),
        ("torchvision:mobilenet_v3_small(width_mult=0.5)", models.mobilenet_v3_small, {"width_mult": 0.5}),
        ("torchvision:mnasnet1_0(alpha=0.35)", models.MNASNet, {"alpha": 0.35}),
        (
            "torchvision:shufflenet_v2_x1_0(stages_out_channels=[24, 64, 128, 256, 512], stages_repeats=[2, 3, 2])",
            models.ShuffleNetV2,
            {"stages_repeats": [2, 3, 2], "stages_out_channels": [24, 64, 128, 256, 512]},
        ),
        (
            "torchvision:densenet121(block_config=[4, 4, 4], growth_rate=12, num_init_features=24)",
            models.DenseNet,
            {"growth_rate": 12, "block_config": (4, 4, 4), "num_init_features": 24},
        ),
        ("torchvision:resnet18(layers=[1, 1, 1, 1])", models.ResNet, {"layers": [1, 1, 1, 1]}),
        (
            "torchvision:resnet50(groups=1, layers=[2, 2, 2, 2], width_per_group=64)",
            models.ResNet,
            {"layers": [2, 2, 2, 2], "deep": True},
        ),
        (
            "torchvision:resnet50(groups=8, layers=[1, 2, 1, 1], width_per_group=16)",
            models.ResNet,
            {"layers": [1, 2, 1, 1], "groups": 8, "width_per_group": 16, "deep": True},
        ),
    ],
)
def test_other_sizes_of_torchvision_are_exact(architecture, build, options):
    if build is models.ResNet:
        block = models.resnet.Bottleneck if options.pop("deep", False) else models.resnet.BasicBlock
        options = {"block": block, **options}
    net = made(build, **options, num_classes=11)
    verdict, module, notes = identify(checkpoint(zeros(net), "module."))
    assert (verdict.architecture, verdict.confidence, verdict.classes, notes) == (architecture, "exact", 11, ())
    assert module.state_dict().keys() == net.state_dict().keys()
    assert of_verdict(verdict).input_size == (3, 224, 224)


@pytest.mark.parametrize("width", [0.3, 0.42, 0.6, 0.71, 0.9, 1.1, 1.7])
def test_odd_width_multipliers_are_found(width):
    for build in (models.mobilenet_v2, models.mobilenet_v3_small):
        net = made(build, width_mult=width)
        verdict, _, _ = identify(Checkpoint(zeros(net)))
        assert verdict.confidence == "exact", (build.__name__, verdict)
        again = catalogue.blueprint(verdict.architecture).shapes
        assert again == catalogue.shapes_of(net)


def test_what_was_inferred_computes_the_same():
    torch.manual_seed(0)
    net = models.ResNet(models.resnet.Bottleneck, [1, 1, 2, 1], num_classes=5, groups=4, width_per_group=8).eval()
    verdict, module, _ = identify(Checkpoint(net.state_dict()))
    images = torch.rand(1, 3, 64, 64)
    assert verdict.architecture == "torchvision:resnet50(groups=4, layers=[1, 1, 2, 1], width_per_group=8)"
    torch.testing.assert_close(module.eval()(images), net(images))


def test_a_small_stem_on_an_unusual_depth():
    state = zeros(made(models.ResNet, models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10))
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    verdict, module, _ = identify(Checkpoint(state))
    assert (verdict.architecture, verdict.confidence) == ("torchvision:resnet18(layers=[1, 1, 1, 1])", "likely")
    assert verdict.small and module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("short", ["cifar-resnet14", "cifar-resnet26b", "wrn-22-3"])
def test_depths_and_widths_of_the_zoo_that_are_not_listed(short):
    assert short not in zoo.names()
    verdict, _, _ = identify(checkpoint(zeros(made(zoo.create, short)), "module."))
    assert (verdict.architecture, verdict.confidence) == (f"zoo:{short}", "exact")


def test_standard_sizes_keep_their_names():
    for short in ("resnet18", "resnext50_32x4d", "mobilenet_v2", "densenet121"):
        assert identify(Checkpoint(empty(f"torchvision:{short}")))[0].architecture == f"torchvision:{short}"


@pytest.mark.parametrize(
    "state",
    [
        {f"layer{stage}.{i}.conv1.weight": (8, 8, 3, 3) for stage in (1, 2, 3, 4) for i in range(2000)},
        {"layer1.0.conv1.weight": (64,), "layer1.0.conv3.weight": (), "layer1.0.conv2.weight": ()},
        {"layer1.0.conv1.weight": (64, 64, 1, 1), "layer1.0.conv3.weight": (64, 64), "layer1.0.conv2.weight": (64, 0)},
        {"features.18.0.weight": (9, 9), "features.17.conv.2.weight": (10**9, 1, 1, 1)},
        {"features.18.0.weight": (9, 9), "features.17.conv.2.weight": (0, 3, 1, 1)},
        {
            f"features.denseblock{b}.denselayer{i}.conv2.weight": (2, 8, 3, 3)
            for b in range(1, 9)
            for i in range(1, 400)
        },
        {"stage2.0.branch1.0.weight": (3, 1, 3, 3), "conv1.0.weight": (10**7, 3, 3, 3)},
    ],
)
def test_shapes_of_strangers_neither_crash_nor_grow(state):
    """Numbers in names and shapes are a stranger's: what is built for them stays small."""
    for name in proposals(state):
        _, options = parsed(name)
        numbers = [n for value in options.values() for n in (value if isinstance(value, list) else [value])]
        assert max(numbers, default=0) <= 65_536
        assert sum(options.get("layers", ())) <= 400 and sum(options.get("block_config", ())) <= 400


def test_expressions_are_written_and_read():
    text = written("torchvision:resnet50", {"layers": [1, 2], "groups": 8})
    assert text == "torchvision:resnet50(groups=8, layers=[1, 2])"
    assert parsed(text) == ("torchvision:resnet50", {"groups": 8, "layers": [1, 2]})
    assert written(text, {"groups": 1}) == "torchvision:resnet50(groups=1, layers=[1, 2])"
    assert parsed("zoo:lenet5") == ("zoo:lenet5", {})


@pytest.mark.parametrize(
    "text", ["a:b(", "a:b(x)", "a:b(1)", "a:b(x=open('f'))", "a:b(x=1)(y=2)", "a:b(**{'x': 1})", f"a:b(x={'(' * 500})"]
)
def test_expressions_run_nothing(text):
    with pytest.raises(SpError, match=r"is not an architecture with options; write it as"):
        parsed(text)
