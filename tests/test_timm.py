"""Architectures of timm by a table of names and shapes; most of it without timm, the rest where it is installed."""

import subprocess
import sys

import pytest
import torch

import sp_core as sp
from sp_core.checkpoints import catalogue, hub, timm_names
from sp_core.checkpoints.feeding import of_verdict
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.read import Checkpoint
from sp_core.checkpoints.timm_names import Row, Table, hash_names, hash_shapes, matches, table
from sp_core.errors import SpError
from tests.test_identify import empty

# names and shapes of a small network of timm (test_resnet), so that the table can be asked without the library
SHAPES = {"conv1.weight": (32, 3, 3, 3), "fc.weight": (5, 96), "fc.bias": (5,), "bn1.weight": (32,)}


def row(shapes, head=("fc.weight", "fc.bias"), stem=(("conv1.weight", 1),), alike=(("net",),)):
    body = {key: shape for key, shape in shapes.items() if key not in head}
    return hash_names(body), Row(frozenset(head), dict(stem), hash_shapes(body, dict(stem)), alike)


@pytest.fixture
def small_table(monkeypatch):
    def put(*rows):
        held: dict[str, tuple[Row, ...]] = {}
        for body, one in rows:
            held[body] = (*held.get(body, ()), one)
        made = Table("0", held, tuple({one.head for _, one in rows}))
        monkeypatch.setattr(timm_names, "table", lambda: made)

    return put


@pytest.fixture
def no_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)


def test_the_table_knows_torchvisions_namesakes():
    for short in ("densenet121", "resnet34", "resnext50_32x4d", "wide_resnet50_2"):
        found = matches(catalogue.blueprint(f"torchvision:{short}").shapes)
        assert [(match.name, match.classes, match.channels) for match in found][:1] == [(short, 1000, 3)]
    names = [name for rows in table().rows.values() for one in rows for group in one.alike for name in group]
    assert len(set(names)) > 1200 and table().version


def test_classes_and_channels_are_read_from_the_shapes(small_table):
    small_table(row(SHAPES))
    assert [(m.name, m.classes, m.channels) for m in matches(SHAPES)] == [("net", 5, 3)]
    other = SHAPES | {"conv1.weight": (32, 1, 3, 3), "fc.weight": (7, 96), "fc.bias": (7,)}
    assert [(m.classes, m.channels) for m in matches(other)] == [(7, 1)]
    assert matches(other | {"fc.bias": (8,)}) == []
    assert matches(other | {"conv1.weight": (33, 1, 3, 3)}) == []
    assert matches(other | {"conv1.weight": (32,)}) == []
    assert matches(other | {"more": (1,)}) == []


def test_pixels_folded_into_channels(small_table):
    small_table(row(SHAPES | {"conv1.weight": (32, 48, 3, 3)}, stem=(("conv1.weight", 16),)))
    assert [m.channels for m in matches(SHAPES | {"conv1.weight": (32, 16, 3, 3)})] == [1]
    assert matches(SHAPES | {"conv1.weight": (32, 17, 3, 3)}) == []


def test_without_a_table_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(timm_names, "TABLE", tmp_path / "none.json")
    table.cache_clear()
    try:
        assert matches(SHAPES) == []
    finally:
        table.cache_clear()


def test_without_timm_the_message_says_what_to_install(small_table, no_timm):
    small_table(row(SHAPES))
    verdict, _, _ = identify(Checkpoint({key: torch.zeros(shape) for key, shape in SHAPES.items()}))
    assert verdict.confidence == "weights-only"
    assert verdict.differences[0].startswith("This looks like timm's net, and timm is not installed here: pip ")
    with pytest.raises(SpError, match=r"timm is not installed; install it with: pip install timm"):
        identify(Checkpoint(empty("zoo:lenet5")), architecture="timm:resnet18")


def test_namesakes_of_torchvision_are_mentioned_and_the_others_not():
    verdict, _, notes = identify(Checkpoint(empty("torchvision:resnet50", 3)))
    assert (verdict.architecture, verdict.confidence) == ("torchvision:resnet50", "exact")
    assert len(notes) == 1 and "timm:resnetaa50" in notes[0] and "timm:resnetblur50" in notes[0]
    assert identify(Checkpoint(empty("torchvision:resnet34")))[2] == ()


def test_timm_is_imported_only_for_what_the_table_knows():
    code = (
        "import sys, torch\nfrom sp_core.checkpoints import catalogue\n"
        "from sp_core.checkpoints.identify import identify\n"
        "from sp_core.checkpoints.read import Checkpoint\n"
        "print(identify(Checkpoint(catalogue.build('torchvision:squeezenet1_1').state_dict()))[0].architecture,\n"
        "      identify(Checkpoint({'a.weight': torch.zeros(3, 4)}))[0].confidence, 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torchvision:squeezenet1_1", "weights-only", "False"]


def state_of(name, **options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, **options).eval()
    for key, value in net.state_dict().items():
        if value.is_floating_point() and not key.endswith("running_var"):
            value.add_(0.05 * torch.randn_like(value))  # fresh networks are full of zeros, which hide differences
    return net, {f"module.{key}": value for key, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {"num_classes": 7, "in_chans": 1}),
        ("test_convnext", {}),
        ("test_byobnet", {"num_classes": 3}),
        ("test_nfnet", {"in_chans": 4}),
        ("test_mambaout", {}),
        ("tresnet_m", {"num_classes": 5, "in_chans": 1}),
    ],
)
def test_networks_of_timm_are_exact(name, options):
    net, state = state_of(name, **options)
    verdict, module, _ = identify(Checkpoint(state))
    channels = options.get("in_chans", 3)
    assert (verdict.architecture, verdict.confidence) == (f"timm:{name}", "exact")
    assert (verdict.classes, verdict.channels) == (options.get("num_classes", net.num_classes), channels)
    images = torch.rand(1, channels, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(images), net(images))


def test_without_a_head_it_is_a_body_of_timm():
    net, state = state_of("test_convnext", num_classes=0)
    verdict, module, _ = identify(Checkpoint(state))
    assert (verdict.architecture, verdict.confidence, verdict.classes) == ("timm:test_convnext", "exact", 0)
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(images), net(images))


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "tf_mobilenetv3_small_100"])
def test_what_others_compute_differently_is_only_likely(name):
    _, state = state_of(name, num_classes=4)
    verdict, _, _ = identify(Checkpoint(state))
    other = {"mobilenetv3_small_100", "tf_mobilenetv3_small_100"} - {verdict.architecture.partition(":")[2]}
    assert verdict.confidence == "likely" and len(other) == 1
    assert f"timm:{other.pop()} have the same names and shapes but compute something else" in verdict.differences[0]
    assert identify(Checkpoint(state), architecture=f"timm:{name}")[0].confidence == "exact"


def test_a_table_that_lies_makes_no_exact(monkeypatch):
    _, state = state_of("test_resnet")
    shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in state.items()}
    shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    head = ("fc.weight", "fc.bias")
    body, lying = row(shapes, stem=(), alike=(("test_convnext",), ("no_such_network",)))
    monkeypatch.setattr(timm_names, "table", lambda: Table("0", {body: (lying,)}, (frozenset(head),)))
    assert identify(Checkpoint(state))[0].confidence == "weights-only"


def test_it_is_fed_as_timm_does_and_says_that_this_is_a_guess():
    _, state = state_of("test_resnet", num_classes=1000)
    verdict, _, _ = identify(Checkpoint(state))
    fed = of_verdict(verdict)
    assert fed.input_size == (3, 160, 160) and fed.classes is not None and fed.classes[0] == "tench"
    assert "what timm's test_resnet uses for its own weights" in fed.guesses["size"]


def test_a_file_of_timm_through_the_front_door(tmp_path):
    _, state = state_of("test_byobnet", num_classes=6)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth.tar")
    found = sp.load(tmp_path / "a.pth.tar", device="cpu")
    assert (found.architecture, found.confidence, found.class_count) == ("timm:test_byobnet", "exact", 6)
    named = hub.from_timm("test_byobnet", torch.device("cpu"))
    assert (found.input_size[1:], found.resize) == (named.input_size[1:], named.resize)
