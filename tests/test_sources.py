"""Sources: what each text loads, offline, and the sentence for each that does not."""

import csv
import json
import sys
import threading
import types
import urllib.error

import pytest
import safetensors.torch
import torch
from torch import nn

import sp_core as sp
from sp_core import zoo
from sp_core.checkpoints import catalogue, feeding, hub, sources
from sp_core.checkpoints.verdict import Verdict


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty torchvision cache, and a network that is not there: asking it takes no time and answers nothing."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def nobody(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(hub.urllib.request, "urlopen", nobody)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A folder of bundled checkpoints with one network in it, and its card."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.manual_seed(5)
    net = zoo.create("textures-vgg", classes=3)
    safetensors.torch.save_file(net.state_dict(), folder / "my-vgg.safetensors")
    card = {"architecture": "a lie", "input_size": [3, 48, 48], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    (folder / "my-vgg.json").write_text(json.dumps(card | {"classes": ["a", "b", "c"]}))
    monkeypatch.setattr(sources, "BUNDLED", folder)
    return folder


@pytest.mark.parametrize("source", ["bundled:my-vgg", "my-vgg"])
def test_bundled(bundled, source):
    net = sp.load(source)
    assert (net.name, net.architecture, net.confidence) == ("my-vgg", "zoo:textures-vgg", "exact")
    assert net.input_size == (3, 48, 48) and net.mean == [0.1, 0.2, 0.3] and net.classes == ("a", "b", "c")
    assert net.source == "bundled:my-vgg" and net.warnings == () and net.resize == 48


def test_a_card_beside_a_file_is_used_and_one_that_lies_is_refused(bundled):
    path = bundled / "my-vgg.safetensors"
    assert sp.load(path).classes == ("a", "b", "c") == sp.load(str(path)).classes
    card = json.loads(path.with_suffix(".json").read_text())
    for change, message in [
        ({"classes": ["a"]}, "names 1 classes, but the network has 3"),
        ({"input_size": [1, 8, 8]}, "the network takes 3 channels"),
        ({"input_size": "big"}, "model card"),
        ({"mean": ["x"]}, "not readable"),
        ({"mean": [0.1]}, "one number a channel"),
    ]:
        path.with_suffix(".json").write_text(json.dumps(card | change))
        with pytest.raises(sp.SpError, match=message):
            sp.load(path)
    for text in ("[1]", "{", "\xff", "[" * 100_000):
        path.with_suffix(".json").write_text(text, encoding="latin-1")
        with pytest.raises(sp.SpError, match=r"model card"):
            sp.load(path)


def test_what_is_bundled_is_what_the_project_ships():
    for name in sp.checkpoints.bundled_names():
        net = sp.load(f"bundled:{name}", device="cpu")
        assert net.confidence == "exact" and net.classes is not None and len(net.classes) == net.class_count
        assert sp.predict(net, torch.zeros(1, *net.input_size)).isfinite().all()


def test_zoo_weights_are_random_but_always_the_same():
    before = torch.get_rng_state()
    first, second = sp.load("zoo:textures-resnet"), sp.load("zoo:textures-resnet")
    assert first.fingerprint == second.fingerprint and "untrained" in first.warnings[0]
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprint_does_not_depend_on_the_file(tmp_path):
    net = zoo.create("textures-vgg")
    state = net.state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    found = {sp.load(tmp_path / name).fingerprint for name in ("a.pth", "b.bin", "c.safetensors")}
    found.add(sp.checkpoints.load_bytes((tmp_path / "a.pth").read_bytes(), "../../upload.pth").fingerprint)
    found.add(sp.Network(net, input_size=(3, 64, 64)).fingerprint)
    assert len(found) == 1


def test_uploads_keep_their_name_and_nothing_of_their_path(tmp_path):
    torch.save(zoo.create("textures-vgg").state_dict(), tmp_path / "a.pth")
    net = sp.checkpoints.load_bytes((tmp_path / "a.pth").read_bytes(), "../../etc/mine.pth")
    assert (net.name, net.source) == ("mine", "upload mine.pth")


def test_torchvision_without_weights_is_random_and_says_so(cache):
    net, again = sp.load("torchvision:squeezenet1_1"), sp.load("torchvision:squeezenet1_1@none")
    assert net.fingerprint == again.fingerprint and net.architecture == "torchvision:squeezenet1_1"
    assert net.warnings == (
        "The weights of squeezenet1_1 are random (seed 0): no trained ones are in torchvision's cache; "
        "torchvision:squeezenet1_1@DEFAULT loads trained ones.",
    )
    assert again.warnings == ("The weights of squeezenet1_1 are random (seed 0), as asked.",)
    assert net.input_size == (3, 224, 224) and net.classes is None and net.resize == 256


def put_in_cache(cache, weights, module):
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), cache / hub.cache_path(weights).name)


@pytest.mark.parametrize("source", ["squeezenet1_1", "squeezenet1_1@DEFAULT", "squeezenet1_1@imagenet1k_v1"])
def test_torchvision_takes_weights_from_its_cache(cache, source):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    torch.manual_seed(9)
    module = squeezenet1_1()
    put_in_cache(cache, SqueezeNet1_1_Weights.IMAGENET1K_V1, module)
    net = sp.load(f"torchvision:{source}")
    assert net.fingerprint == sp.Network(module).fingerprint and net.warnings == ()
    assert net.classes[0] == "tench" and len(net.classes) == 1000 and net.mean == (0.485, 0.456, 0.406)
    assert net.source == "torchvision:squeezenet1_1@IMAGENET1K_V1"


def test_torchvision_offline_says_so_in_one_sentence(cache):
    with pytest.raises(
        sp.SpError, match=r"is not in torchvision's cache and cannot be downloaded \(Name or service"
    ) as caught:
        sp.load("torchvision:resnet18@IMAGENET1K_V1")
    assert "resnet18-f37072fd.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_not_waited_for(cache, monkeypatch):
    never, answered = threading.Event(), threading.Event()

    def silent(*args, **kwargs):
        never.wait(120)
        answered.set()
        raise urllib.error.URLError("too late")

    monkeypatch.setattr(hub.urllib.request, "urlopen", silent)
    monkeypatch.setattr(hub, "PATIENCE", 0.1)
    with pytest.raises(sp.SpError, match=r"no answer in 0\.1 seconds"):
        sp.load("torchvision:resnet18@DEFAULT")
    assert not answered.is_set()  # it still waits; we do not
    never.set()


def test_a_damaged_or_wrong_file_in_the_cache_is_named(cache):
    from torchvision.models import AlexNet_Weights, ResNet18_Weights, squeezenet1_1

    put_in_cache(cache, ResNet18_Weights.DEFAULT, squeezenet1_1())
    with pytest.raises(sp.SpError, match=r"is not resnet18; delete it"):
        sp.load("torchvision:resnet18@DEFAULT")
    hub.cache_path(AlexNet_Weights.DEFAULT).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(sp.SpError, match=r"It lies in torchvision's cache .*: delete it"):
        sp.load("torchvision:alexnet@DEFAULT")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "There is no file"),
        ("resnet18", "did you mean torchvision:resnet18"),
        ("no-such-thing", "name a file or one of bundled:, torchvision:, zoo:, timm:"),
        ("x" * 3000, "There is no file"),
        ("bundled:nothing", "'nothing' is not bundled"),
        ("bundled:../../etc/passwd", "is not bundled"),
        ("zoo:textures-vg", "did you mean"),
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'; did you mean"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier"),
        ("torchvision:resnet18@V9", "choose one of: IMAGENET1K_V1, DEFAULT, none"),
        ("torchvision:", "no classifier ''"),
        ("/", "is a directory"),
        ("/nowhere/x.pth", "cannot be opened"),
        ("http://example.org/a.pth", "cannot be opened"),
    ],
)
def test_sources_that_do_not_exist(source, message, cache):
    with pytest.raises(sp.SpError, match=message):
        sp.load(source)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "", "cpu:x"])
def test_devices_that_are_not_there(device):
    with pytest.raises(sp.SpError, match=r"There is no device"):
        sp.load("zoo:textures-vgg", device=device)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(sp.SpError, match=r"timm is not installed; install it with: pip install timm"):
        sp.load("timm:resnet18")


def test_timm_feeds_as_its_configuration_says(monkeypatch):
    def create_model(name, pretrained):
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))
        net.pretrained_cfg = {"input_size": (3, 160, 160), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.8}
        return net

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    net = sp.load("timm:tiny")
    assert net.input_size == (3, 160, 160) and net.resize == 200 and net.mean == (0.5,) * 3
    assert net.architecture == "timm:tiny" and "random" in net.warnings[0]
    assert sp.load("timm:tiny@pretrained").warnings == ()
    with pytest.raises(sp.SpError, match=r"timm:other cannot be made \(Unknown model"):
        sp.load("timm:other")
    with pytest.raises(sp.SpError, match=r"takes @pretrained or nothing"):
        sp.load("timm:tiny@v2")


def test_names_for_a_thousand_classes_and_for_no_other_number():
    usual = feeding.of_verdict(Verdict("torchvision:resnet18", "exact", classes=1000))
    assert usual.classes[0] == "tench" and usual.resize == 256 and "guessed" in usual.warnings[0]
    other = feeding.of_verdict(Verdict("torchvision:resnet18", "exact", classes=10))
    assert other.classes is None and "guessed" in other.warnings[0]
    grey = feeding.of_verdict(Verdict("torchvision:resnet18", "exact", classes=10, channels=1))
    assert grey.input_size == (1, 224, 224) and grey.mean is None and "1 channels" in grey.warnings[-1]
    small = feeding.of_verdict(Verdict("torchvision:resnet18", "likely", classes=10, small=True))
    assert small.input_size == (3, 32, 32)
    assert feeding.of_verdict(Verdict("torchvision:inception_v3", "exact", classes=1000)).input_size == (3, 299, 299)


def test_googlenet_converts_its_own_input(tmp_path):
    torch.save(catalogue.build("torchvision:googlenet", auxiliary=False).state_dict(), tmp_path / "g.pth")
    net = sp.load(tmp_path / "g.pth")
    assert net.module.transform_input is True and any("transform_input" in warning for warning in net.warnings)


@pytest.mark.slow
def test_predictions_agree_with_the_published_table(real_data):
    """Every photo, both networks: the same class, and its probability to the four digits that were printed."""
    folder = real_data / "imagenet"
    rows = list(csv.DictReader((folder / "expected_top1.csv").read_text().splitlines()))
    assert len(rows) == 125
    nets = [
        (sp.load(folder / "mobilenet_v2.pth", device="cpu"), "mobilenet_v2_tv_top1", "p"),
        (sp.load(str(folder / "squeezenet1_0.pth"), device="cpu"), "squeezenet1_0_tv_top1", "p2"),
    ]
    for net, *_ in nets:
        assert net.confidence == "exact" and net.architecture == f"torchvision:{net.name}" and len(net.classes) == 1000
    for row in rows:
        image = sp.open_image(folder / "photos" / row["file"])
        for net, index, share in nets:
            shares = sp.predict(net, net.view(image)[None]).softmax(1)[0]
            assert int(shares.argmax()) == int(row[index]), (net.name, row["file"])
            assert float(shares.max()) == pytest.approx(float(row[share]), abs=2e-4), (net.name, row["file"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("resnet20-12fca82f.th", 0.89),
        ("lightning_resnet.ckpt", 0.89),
        ("lightning_densenet.ckpt", 0.88),
        ("captum_cifar_torchvision.pt", 0.56),
    ],
)
def test_a_found_cifar_network_is_as_good_as_its_authors_say(real_data, file, least):
    import numpy as np
    from PIL import Image

    net = sp.load(real_data / "checkpoints" / file, device="cpu")
    assert net.classes[3] == "cat" and net.input_size == (3, 32, 32)
    labels = torch.from_numpy(np.load(real_data / "cifar10" / "test_labels.npy"))[:1000]
    right = 0
    for part in range(2):
        pixels = np.array(Image.open(real_data / "cifar10" / "test" / f"{part:03}.webp").convert("RGB"))
        images = torch.from_numpy(pixels.reshape(500, 32, 32, 3)).permute(0, 3, 1, 2).float() / 255
        right += int((sp.predict(net, images).argmax(1) == labels[part * 500 : part * 500 + 500]).sum())
    assert right / 1000 > least


def test_what_names_and_shapes_leave_open_is_said_and_a_card_settles_it(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "digits.safetensors"
    safetensors.torch.save_file(zoo.create("mnist-example").state_dict(), path)
    net = sp.load(path, device="cpu")
    assert net.warnings == (zoo.entry("mnist-example").caveat,) and "guessed" in net.warnings[0]
    assert net.input_size == (1, 28, 28) and net.mean == (0.1307,) and net.classes == tuple("0123456789")
    assert sp.predict(net, torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    path.with_suffix(".json").write_text(json.dumps({"mean": [0.5], "std": [0.5]}))
    assert sp.load(path, device="cpu").mean == [0.5] and sp.load(path, device="cpu").warnings == ()
