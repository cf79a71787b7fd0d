"""An architecture that a person names: what fits, what does not, and what may be asked."""

import pytest
import torch
from torch import nn
from torchvision import models

import sp_core as sp
from sp_core import cli
from sp_core.checkpoints import catalogue
from sp_core.checkpoints.diff import diff
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.named import Asked, asked, option
from sp_core.checkpoints.read import Checkpoint
from sp_core.errors import SpError
from tests.test_identify import empty


def test_everything_fits():
    found = diff(Checkpoint(empty("torchvision:squeezenet1_1", 7)), "torchvision:squeezenet1_1")
    assert found.same and found.fits == len(catalogue.blueprint("torchvision:squeezenet1_1").shapes)
    assert found.text == "52 of 52 tensors of torchvision:squeezenet1_1 fit."


def test_what_differs_is_named_and_counted():
    state = empty("torchvision:resnet18", 6)
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    state["extra"] = torch.zeros(3)
    del state["bn1.weight"], state["bn1.bias"]
    found = diff(Checkpoint({f"module.{key}": value for key, value in state.items()}), "torchvision:resnet18")
    assert (found.missing, found.unexpected) == (("bn1.weight", "bn1.bias"), ("extra",))
    assert found.reshaped == (("layer1.0.conv1.weight", (64, 64, 1, 1), (64, 64, 3, 3)),)
    assert found.fits == 102 - 3 and not found.same
    assert found.text == (
        "99 of 102 tensors of torchvision:resnet18 fit; 2 missing (bn1.weight, bn1.bias), 1 without a place (extra), "
        "1 of another shape (layer1.0.conv1.weight is 64×64×1×1 instead of 64×64×3×3)."
    )


def test_wanted_classes_and_channels_are_compared():
    state = Checkpoint(empty("torchvision:resnet18", 6))
    assert diff(state, "torchvision:resnet18").same
    found = diff(state, "torchvision:resnet18", {"classes": 10, "channels": 1})
    assert [name for name, _, _ in found.reshaped] == ["conv1.weight", "fc.weight", "fc.bias"]


def test_a_file_is_loaded_as_it_is_said_to_be(tmp_path):
    torch.manual_seed(0)
    net = models.resnet18(num_classes=10)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    net.eval()
    torch.save(net.state_dict(), tmp_path / "a.pth")
    images = torch.rand(1, 3, 32, 32)
    for options, confidence in (({"small": True, "classes": 10}, "exact"), ({}, "likely")):
        found = sp.load(tmp_path / "a.pth", device="cpu", architecture="torchvision:resnet18", **options)
        assert (found.architecture, found.confidence) == ("torchvision:resnet18", confidence)
        assert found.input_size == (3, 32, 32)
        torch.testing.assert_close(found.module(images), net(images))
    found = sp.load(tmp_path / "a.pth", device="cpu", architecture="torchvision:resnet18", small=False)
    assert found.confidence == "likely" and "1 weights are missing and random: conv1.weight." in found.warnings
    with pytest.raises(SpError, match=r"is not torchvision:resnet34: 102 of 182 .* 80 missing"):
        sp.load(tmp_path / "a.pth", architecture="torchvision:resnet34", small=True)
    with pytest.raises(SpError, match=r"fc.weight is 10×512 instead of 9×512"):
        sp.load(tmp_path / "a.pth", architecture="torchvision:resnet18", small=True, classes=9)


def test_a_person_may_choose_among_architectures_that_fit():
    state = Checkpoint(empty("zoo:lenet5"))
    assert identify(state)[0].architecture == "zoo:lenet5"
    verdict, module, _ = identify(state, architecture="zoo:tutorial-cifar-net")
    assert (verdict.architecture, verdict.confidence, verdict.channels) == ("zoo:tutorial-cifar-net", "exact", 1)
    assert module.conv1.padding == (0, 0)


def test_nearly_everything_fits():
    state = empty("torchvision:resnet18", 6)
    del state["layer2.0.bn1.weight"]
    verdict, _, _ = identify(Checkpoint(state), architecture="torchvision:resnet18")
    assert verdict.confidence == "likely" and "layer2.0.bn1.weight" in verdict.differences[0]


def test_options_of_the_constructor():
    with catalogue.empty_on_meta():
        net = models.mobilenet_v2(width_mult=0.5, num_classes=4)
    state = Checkpoint({key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in net.state_dict().items()})
    verdict, _, _ = identify(state, architecture="torchvision:mobilenet_v2", options={"width_mult": 0.5})
    assert (verdict.architecture, verdict.confidence) == ("torchvision:mobilenet_v2(width_mult=0.5)", "exact")
    assert identify(state, architecture=verdict.architecture)[0] == verdict  # what a card says can be typed
    with pytest.raises(SpError, match=r"is not torchvision:mobilenet_v2\(width_mult=0.75\)"):
        identify(state, architecture="torchvision:mobilenet_v2", options={"width_mult": 0.75})


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("resnet18", {}, r"no architecture 'resnet18'; did you mean torchvision:resnet18"),
        ("keras:resnet18", {}, r"no architecture 'keras:resnet18'"),
        ("torchvision:resnet19", {}, r"no architecture 'torchvision:resnet19'; did you mean torchvision:resnet1"),
        ("zoo:nothing-like-it", {}, r"'nothing-like-it' is not an architecture of the zoo"),
        (
            "torchvision:resnet18",
            {"depth": 3},
            r"'depth' is not an option of torchvision:resnet18; its options are: cl",
        ),
        ("torchvision:resnet18", {"classes": 0}, r"classes is a whole number of 1 or more; got 0"),
        ("torchvision:resnet18", {"classes": True}, r"classes is a whole number of 1 or more; got True"),
        ("torchvision:resnet18", {"channels": 1.5}, r"channels is a whole number"),
        ("torchvision:resnet18", {"small": 3}, r"small is true .* or false; got 3"),
        ("torchvision:vgg11", {"small": True}, r"small is an option of torchvision's ResNets"),
        ("torchvision:resnet18", {"layers": [10**9] * 4}, r"at most 400 blocks in all"),
        (
            "torchvision:mobilenet_v2",
            {"width_mult": float("nan")},
            r"width_mult of torchvision:mobilenet_v2 is a number",
        ),
        ("torchvision:mobilenet_v2", {"width_mult": "wide"}, r"width_mult .* is a number from 0 to 10,000; got wide"),
        ("torchvision:mobilenet_v2", {"round_nearest": 0}, r"cannot be built \(.*choose other options"),
        ("zoo:lenet5", {"make": 1}, r"'make' is not an option of zoo:lenet5"),
    ],
)
def test_what_cannot_be_asked(architecture, options, message):
    with pytest.raises(SpError, match=message):
        diff(Checkpoint(empty("zoo:lenet5")), architecture, options)


def test_what_is_asked():
    assert asked("torchvision:resnet18", {"classes": 3, "small": None}) == Asked("torchvision:resnet18", 3)
    assert asked("torchvision:mnasnet1_0(alpha=0.5)").name == "torchvision:mnasnet1_0(alpha=0.5)"


def test_options_need_an_architecture_and_a_file(tmp_path):
    with pytest.raises(SpError, match=r"classes= needs architecture=, such as torchvision:resnet18"):
        sp.load(tmp_path / "a.pth", classes=3)
    with pytest.raises(SpError, match=r"zoo:lenet5 says itself what it is"):
        sp.load("zoo:lenet5", architecture="zoo:lenet5")


@pytest.mark.parametrize("text", ["small", "a=", "a=open('x')", "a=__import__", f"a={'[' * 300}"])
def test_options_as_text_run_nothing(text):
    with pytest.raises(SpError, match=r"An option is written key=value"):
        option(text)


def test_on_the_command_line(tmp_path, capsys):
    torch.save(catalogue.build("zoo:lenet5").state_dict(), tmp_path / "a.pth")
    said = ["describe", str(tmp_path / "a.pth"), "--architecture", "zoo:tutorial-cifar-net", "--option"]
    assert cli.main([*said, "classes=10"]) == 0
    assert "zoo:tutorial-cifar-net (exact)" in capsys.readouterr().out
    assert cli.main([*said, "classes=9"]) == 2
    assert "fc3.weight is 10×84 instead of 9×84" in capsys.readouterr().err
