"""Names and shapes to an architecture: every torchvision classifier, changed ends, and what must not be recognised."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from sp_core import zoo
from sp_core.checkpoints import catalogue, heads
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.read import Checkpoint, read
from sp_core.errors import NeedsGraph, SpError


def checkpoint(module_or_state, prefix="", drop=()) -> Checkpoint:
    state = module_or_state.state_dict() if isinstance(module_or_state, nn.Module) else module_or_state
    return Checkpoint({prefix + key: value for key, value in state.items() if not key.endswith(tuple(drop) or ("\0",))})


def empty(name: str, classes=None, auxiliary=True) -> dict:
    """The state dict of an architecture with values that cost no memory."""
    shapes = catalogue.skeleton(name, classes, auxiliary).state_dict()
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in shapes.items()}


@pytest.mark.slow
def test_no_two_torchvision_classifiers_are_confused():
    """Each is among the candidates for its own names, and no other has its names and shapes, whatever the classes."""
    bodies = {}
    for short in catalogue.torchvision_names():
        plan = catalogue.blueprint(f"torchvision:{short}")
        assert plan.name in catalogue.candidates(plan.shapes), f"no mark in the table of families fits {short}"
        assert plan.head, f"{short} has no tensor as long as its classes"
        body = frozenset(item for item in plan.shapes.items() if item[0] not in plan.head)
        assert body not in bodies, f"{short} and {bodies[body]} cannot be told apart"
        bodies[body] = short


@pytest.mark.slow
@pytest.mark.parametrize(
    "short",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "maxvit_t",
        "mnasnet0_5",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "regnet_x_400mf",
        "resnet18",
        "resnext50_32x4d",
        "shufflenet_v2_x0_5",
        "squeezenet1_0",
        "swin_t",
        "vgg11_bn",
        "vit_b_32",
        "wide_resnet50_2",
    ],
)
def test_every_family_of_torchvision_is_recognised_exactly(short):
    name = f"torchvision:{short}"
    verdict, module, notes = identify(checkpoint(empty(name, 7), "module."))
    assert (verdict.architecture, verdict.confidence, verdict.classes) == (name, "exact", 7)
    assert verdict.also == () and module.state_dict().keys() == empty(name, 7).keys()
    assert notes == () or (short == "resnet18" and "timm:resnetblur18" in notes[0])  # which has the same tensors


# Networks with the same weights: apart from the input's channels, or because a skip of option A has none.
TWINS = {"lenet5": "tutorial-cifar-net", "tutorial-cifar-net": "lenet5"}
TWINS |= {f"cifar-resnet{depth}": f"cifar-resnet{depth}-noshort" for depth in (20, 56, 110)}
OWN = [short for short in zoo.names() if not zoo.entry(short).elsewhere]
QUICK = ("textures", "cifar-resnet20", "lenet5", "tutorial", "mnist", "uva", "wrn-16-", "nin-cifar-root", "tcn", "lstm")


@pytest.mark.parametrize("short", [pytest.param(n, marks=() if n.startswith(QUICK) else pytest.mark.slow) for n in OWN])
def test_the_zoo_is_recognised_exactly(short):
    """Each name gets itself back, and its twin is named."""
    name = f"zoo:{short.removesuffix('-noshort')}"
    for classes in (None, 7):
        verdict, _, notes = identify(checkpoint(empty(f"zoo:{short}", classes), "module."))
        assert (verdict.architecture, verdict.confidence, notes) == (name, "exact", ()), name
        assert verdict.also == ((f"zoo:{TWINS[name[4:]]}",) if name[4:] in TWINS else ())
        assert verdict.classes == (classes or catalogue.blueprint(name).classes)
        assert verdict.channels == zoo.entry(short).input_size[0]


@pytest.mark.parametrize("short", ["resnet18", "alexnet", "squeezenet1_0"])
def test_what_torchvision_has_too_is_called_by_its_name_there(short):
    verdict, _, _ = identify(checkpoint(empty(f"zoo:{short}", 7)))
    assert (verdict.architecture, verdict.confidence, verdict.also) == (f"torchvision:{short}", "exact", ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "short",
    [
        *("cifar-preact-resnet18", "cifar-preact-resnet50", "cifar-resnet18", "cifar-resnet20", "cifar-resnet20b"),
        *("cifar-resnet50", "cifar-vgg11-bn", "lenet5", "mnist-example", "mnist-example-10-20", "mnist-example-20-50"),
        *("textures-vgg", "tutorial-cifar-net", "uva-cifar-densenet", "uva-cifar-resnet", "wrn-16-1", "wrn-28-2"),
    ],
)
def test_a_saved_network_of_the_zoo_comes_back_with_its_weights(short, tmp_path):
    torch.manual_seed(2)
    net = zoo.create(short).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    wrapped = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"net": wrapped, "acc": 9}, tmp_path / "a.pth")
    verdict, module, _ = identify(read(tmp_path / "a.pth"))
    images = torch.rand(2, *zoo.entry(short).input_size)
    assert (verdict.architecture, verdict.confidence) == (f"zoo:{short}", "exact")
    torch.testing.assert_close(module.eval()(images), net(images))


@pytest.mark.slow
def test_marks_are_weights_that_every_checkpoint_of_the_network_holds():
    """And they keep the number of networks that are built for a checkpoint small."""
    for short in OWN:
        plan = catalogue.blueprint(f"zoo:{short}")
        assert zoo.entry(short).marks <= plan.shapes.keys(), short
        assert plan.name in catalogue.candidates(plan.shapes)
    unmarked = {f"zoo:{short}" for short in OWN if not zoo.entry(short).marks}
    for short in ("resnet18", "vgg16_bn", "densenet121"):
        found = catalogue.candidates(catalogue.blueprint(f"torchvision:{short}").shapes)
        assert {name for name in found if name.startswith("zoo:")} == unmarked


def test_a_network_made_for_the_channels_is_taken_before_one_that_must_be_adapted():
    state = empty("zoo:lenet5")
    assert identify(Checkpoint(state))[0].architecture == "zoo:lenet5"
    state["conv1.weight"] = torch.zeros(6, 3, 5, 5)
    verdict, _, _ = identify(Checkpoint(state))
    assert (verdict.architecture, verdict.channels) == ("zoo:tutorial-cifar-net", 3)
    assert "zoo:lenet5 fit these weights as well" in verdict.warnings[0]
    state["conv1.weight"] = torch.zeros(6, 4, 5, 5)
    verdict, module, _ = identify(Checkpoint(state))
    assert verdict.channels == 4 and module.conv1.in_channels == 4


def test_a_likely_grey_network_keeps_its_one_channel():
    verdict, module, _ = identify(Checkpoint(empty("zoo:mnist-example") | {"temperature": torch.ones(1)}))
    assert (verdict.architecture, verdict.confidence, verdict.channels) == ("zoo:mnist-example", "likely", 1)
    assert verdict.differences == ("1 tensors have no place and were left out: temperature.",)
    assert module.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize(
    ("short", "key", "shape"),
    [
        ("wrn-16-1", "block1.layer.1.conv2.weight", (16, 16, 1, 1)),
        ("cifar-resnet18", "layer2.0.shortcut.0.weight", (128, 64, 3, 3)),
        ("cifar-vgg11-bn", "features.4.weight", (128, 64, 5, 5)),
        ("uva-cifar-resnet", "blocks.3.downsample.weight", (32, 16, 3, 3)),
        ("mnist-example", "fc1.weight", (128, 9217)),
    ],
)
def test_one_other_shape_is_never_exact(short, key, shape):
    state = empty(f"zoo:{short}")
    assert state[key].shape != shape
    verdict, _, _ = identify(Checkpoint(state | {key: torch.zeros(shape)}))
    assert verdict.confidence != "exact"
    assert verdict.confidence == "weights-only" or key in verdict.differences[0]


def test_the_weights_are_the_ones_of_the_file():
    torch.manual_seed(3)
    net = catalogue.build("torchvision:squeezenet1_1", 5).eval()
    images = torch.rand(2, 3, 64, 64)
    verdict, module, _ = identify(checkpoint(net, "model."))
    assert verdict.architecture == "torchvision:squeezenet1_1" and verdict.classes == 5
    torch.testing.assert_close(module.eval()(images), net(images))
    assert all(not value.is_meta for value in module.state_dict().values())


def test_input_channels_follow_the_stem():
    state = empty("torchvision:resnet18", 3)
    state["conv1.weight"] = torch.randn(64, 1, 7, 7)
    verdict, module, _ = identify(Checkpoint(state))
    assert (verdict.confidence, verdict.channels) == ("exact", 1)
    assert module.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
    assert torch.equal(module.conv1.weight, state["conv1.weight"]) and module.conv1.stride == (2, 2)


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_auxiliary_classifiers_may_be_there_or_not(name, auxiliary):
    verdict, module, _ = identify(checkpoint(empty(name, 11, auxiliary)))
    assert (verdict.architecture, verdict.confidence, verdict.classes) == (name, "exact", 11)
    assert module.aux_logits is auxiliary


def test_files_from_before_batch_counters():
    state = empty("torchvision:resnet18")
    verdict, module, _ = identify(checkpoint(state, drop=["num_batches_tracked"]))
    assert verdict.confidence == "exact" and module.bn1.num_batches_tracked == 0


def test_metric_beside_the_network_is_left_out_and_said():
    state = {f"model.{key}": value for key, value in empty("torchvision:resnet18").items()}
    verdict, _, notes = identify(Checkpoint(state | {"criterion.weight": torch.ones(1000)}))
    assert verdict.confidence == "exact"
    assert notes[0] == "1 tensors outside 'model.' were left out (criterion.weight)."


def test_backbone_beside_its_head():
    state = empty("torchvision:resnet18")
    split = {key if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()}
    verdict, _, _ = identify(Checkpoint(split))
    assert (verdict.architecture, verdict.confidence) == ("torchvision:resnet18", "exact")


def test_small_stem_is_a_guess_and_said():
    state = empty("torchvision:resnet18", 10)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    verdict, module, _ = identify(Checkpoint(state))
    assert verdict.confidence == "likely" and verdict.small and "3×3 instead of 7×7" in verdict.differences[0]
    assert module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert isinstance(module.maxpool, nn.Identity) and module.conv1.stride == (1, 1)


def test_body_without_a_head():
    state = {key: value for key, value in empty("torchvision:resnet50").items() if not key.startswith("fc.")}
    verdict, module, _ = identify(Checkpoint(state))
    assert (verdict.architecture, verdict.confidence, verdict.classes) == ("torchvision:resnet50", "likely", 0)
    assert "no classifier 'fc'" in verdict.differences[0]
    assert module.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)


@pytest.mark.parametrize(
    ("head", "linear"),
    [
        (nn.Sequential(nn.Dropout(), nn.Linear(512, 4)), 1),
        (nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 4)), 2),
        (
            nn.Sequential(
                nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)
            ),
            3,
        ),
    ],
)
def test_heads_of_ones_own(head, linear):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18()
    net.fc = head
    net.eval()
    images = torch.rand(2, 3, 64, 64)
    verdict, module, _ = identify(checkpoint(net))
    assert (verdict.confidence, verdict.classes) == ("likely", 4)
    assert ("one linear layer" if linear == 1 else f"{linear} linear layers") in verdict.differences[0]
    torch.testing.assert_close(module.eval()(images), net(images))


def test_few_differences_are_listed():
    state = empty("torchvision:resnet18", 6)
    del state["layer2.0.bn1.weight"]
    verdict, module, _ = identify(Checkpoint(state | {"ema_decay": torch.tensor([0.9])}))
    assert verdict.confidence == "likely" and verdict.classes == 6
    assert verdict.differences == (
        "1 weights are missing and random: layer2.0.bn1.weight.",
        "1 tensors have no place and were left out: ema_decay.",
    )
    assert torch.equal(module.layer2[0].bn1.weight, torch.ones(128))


def test_guessing_leaves_the_generator_alone():
    state = empty("torchvision:resnet18", 6)
    del state["layer2.0.bn1.weight"]
    before = torch.get_rng_state()
    identify(Checkpoint(state))
    assert torch.equal(before, torch.get_rng_state())


def test_two_that_fit_take_the_common_one(monkeypatch):
    entry = zoo.entry(zoo.names()[0])
    from torchvision.models import squeezenet1_1

    twin = type(entry)(
        lambda classes=1000: squeezenet1_1(num_classes=classes),
        (3, 224, 224),
        entry.mean,
        entry.std,
        (),
        "the same network",
    )
    monkeypatch.setitem(zoo._ENTRIES, "twin", twin)
    catalogue.blueprint.cache_clear()
    try:
        verdict, _, _ = identify(checkpoint(empty("torchvision:squeezenet1_1", 9)))
    finally:
        catalogue.blueprint.cache_clear()
    assert (verdict.architecture, verdict.also) == ("torchvision:squeezenet1_1", ("zoo:twin",))
    assert verdict.warnings == ("zoo:twin fit these weights as well; torchvision:squeezenet1_1 was taken.",)


@pytest.mark.parametrize(
    "state",
    [
        {"conv1.weight": torch.zeros(6, 3, 5, 5), "conv1.bias": torch.zeros(6), "fc.weight": torch.zeros(2, 6)},
        {"0.weight": torch.zeros(10, 1), "0.bias": torch.zeros(10)},
        dict(nn.Linear(3, 2).state_dict()),
    ],
)
def test_unknown_networks_are_weights_only_and_say_what_was_found(state):
    verdict, module, _ = identify(Checkpoint(state))
    assert (verdict.architecture, verdict.confidence) == ("", "weights-only")
    assert f"{len(state)} tensors ({next(iter(state))}" in verdict.differences[0]
    assert module.state_dict().keys() == state.keys()
    with pytest.raises(NeedsGraph, match="only the weights are known"):
        module(torch.zeros(1, 3, 8, 8))


def test_numbers_without_a_matrix_are_no_network():
    with pytest.raises(SpError, match="no weight matrix"):
        identify(Checkpoint({"a": torch.zeros(99)}))


def test_near_misses_are_not_exact():
    state = empty("torchvision:resnet18")
    state["layer3.1.conv2.weight"] = torch.zeros(256, 256, 1, 1)  # a shape that no class count explains
    verdict, _, _ = identify(Checkpoint(state))
    assert verdict.confidence == "likely" and "layer3.1.conv2.weight" in verdict.differences[0]
    state["layer4.1.conv2.weight"] = torch.zeros(512, 256, 1, 1)
    narrow = {key: value[:8] if value.ndim == 4 else value for key, value in state.items()}
    assert identify(Checkpoint(narrow))[0].confidence == "weights-only"


def test_head_tensors_that_disagree_do_not_fit():
    plan = catalogue.blueprint("torchvision:resnet18")
    assert heads.class_count(plan, {"fc.weight": (5, 512), "fc.bias": (6,)}) is None
    assert heads.class_count(plan, {"fc.weight": (5, 513), "fc.bias": (5,)}) is None
    assert heads.class_count(plan, {"fc.weight": (5, 512), "fc.bias": (5,)}) == 5


def test_blueprints_build_without_memory_and_without_dice():
    before = torch.get_rng_state()
    module = catalogue.skeleton("torchvision:regnet_y_128gf")
    assert sum(p.numel() for p in module.parameters()) > 6e8 and all(
        p.is_meta for p in module.parameters() if p.ndim > 1
    )
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(torch.empty(1), torch.Tensor) and not torch.empty(1).is_meta  # nothing is left behind


# What each readable file of shared checkpoints is; None: an architecture that nobody here knows.
FOUND_IN_THE_WILD = {
    "captum_cifar_torchvision.pt": "zoo:tutorial-cifar-net",
    "captum_titanic_model.pt": None,  # three linear layers for a table
    "chen_resnet_cifar_misnamed.t7": "zoo:cifar-resnet20b",
    "espnetv2_pascal_seg.pth": None,  # segmentation
    "face_slim_Final.pth": None,  # a face detector
    "fashionmnist_mlp_legacy.tar": None,  # linear layers only
    "gasoonjia_cifar_dp_legacy.pth": None,  # a ResNet with layers of its author's own
    "lightning_densenet.ckpt": "zoo:uva-cifar-densenet",
    "lightning_resnet.ckpt": "zoo:uva-cifar-resnet",
    "net_params.pkl": None,  # two linear layers
    "pytorx_mnist_model_best.pth.tar": None,  # a simulated memristor array
    "resnet20-12fca82f.th": "zoo:cifar-resnet20",
    "resnet32-d509ac18.th": "zoo:cifar-resnet32",
}


def test_checkpoints_found_in_the_wild(real_data):
    for file, name in FOUND_IN_THE_WILD.items():
        content = read(real_data / "checkpoints" / file)
        verdict, _, _ = identify(content)
        if name is None:
            assert verdict.confidence == "weights-only", file
        else:
            assert (verdict.architecture, verdict.confidence) == (name, "exact"), file


def test_order_of_the_file_does_not_matter():
    state = empty("torchvision:alexnet", 3)
    turned = OrderedDict(reversed(list(state.items())))
    assert identify(Checkpoint(turned))[0].architecture == "torchvision:alexnet"
