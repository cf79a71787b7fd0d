"""A checkpoint in several files: all of it or a sentence, and never a file from elsewhere."""

import json

import pytest
import safetensors.torch
import torch

from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.read import read, read_bytes
from sp_core.checkpoints.sources import load, load_bytes
from sp_core.errors import SpError
from tests.fuzz.seeds import Sings, network, saved, sharded

INDEX = "model.safetensors.index.json"


@pytest.fixture
def state():
    return network().state_dict()


@pytest.fixture
def folder(state, tmp_path):
    index, parts = sharded(state)
    (tmp_path / INDEX).write_bytes(index)
    for name, part in parts.items():
        (tmp_path / name).write_bytes(part)
    return tmp_path


def edited(folder, **places):
    index = json.loads((folder / INDEX).read_text())
    for key, value in places.items():
        key = key.replace("_", ".")
        if value is None:
            del index["weight_map"][key]
        else:
            index["weight_map"][key] = value
    (folder / INDEX).write_text(json.dumps(index))
    return folder / INDEX


def test_all_parts_are_read(folder, state):
    found = read(folder / INDEX)
    assert found.container == "sharded" and found.notes == ("Read from 2 files.",)
    assert list(found.tensors) == list(state) and all(torch.equal(found.tensors[key], state[key]) for key in state)


def test_from_memory_as_an_upload(folder, state):
    siblings = {path.name: path.read_bytes() for path in folder.iterdir()}
    index = siblings.pop(INDEX)
    assert read_bytes(index, INDEX, siblings).tensors.keys() == state.keys()
    with pytest.raises(
        SpError, match=r"index of 2 files; not found beside it: model-00001-of-00002\.safetensors, model-0"
    ):
        read_bytes(index, INDEX)


def test_a_network_in_several_files_is_recognised(tmp_path):
    import torchvision

    module = torchvision.models.squeezenet1_1(num_classes=7).eval()
    index, parts = {}, {}
    for place, (key, value) in enumerate(module.state_dict().items()):
        name = f"model-0000{place % 3 + 1}-of-00003.safetensors"
        parts.setdefault(name, {})[key] = value
        index[key] = name
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    files = {name: safetensors.torch.save(part) for name, part in parts.items()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    net = load(tmp_path / INDEX, device="cpu")
    again = load_bytes((tmp_path / INDEX).read_bytes(), INDEX, device="cpu", siblings=files)
    assert (net.architecture, net.confidence) == ("torchvision:squeezenet1_1", "exact")
    assert again.fingerprint == net.fingerprint


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "/etc/passwd", "a/b.bin", "..", "", "C:\\x.bin", "a\\b", "x\0", "\ud800"]
)
def test_parts_lie_beside_the_index(path, folder):
    with pytest.raises(SpError, match="must lie beside it, without a folder"):
        read(edited(folder, conv_bias=path))


def test_what_is_missing_is_said(folder, state):
    part = folder / "model-00002-of-00002.bin"
    with pytest.raises(
        SpError, match=r"not found beside it: other\.bin\. Put them in the same folder, or upload them tog"
    ):
        read(edited(folder, conv_bias="other.bin"))
    with pytest.raises(
        SpError, match=r"says that 'conv\.bias' lies in model-00002-of-00002\.bin, but it lies in model-00001"
    ):
        read(edited(folder, conv_bias=part.name))
    edited(folder, conv_bias="model-00001-of-00002.safetensors")
    with pytest.raises(SpError, match=r"says that 'extra' lies in model-00002-of-00002\.bin, but no part holds it"):
        read(edited(folder, extra=part.name))
    edited(folder, extra=None)
    part.unlink()
    with pytest.raises(SpError, match=r"not found beside it: model-00002-of-00002\.bin"):
        read(folder / INDEX)
    part.mkdir()
    with pytest.raises(SpError, match=r"not found beside it: model-00002-of-00002\.bin"):
        read(folder / INDEX)


def test_what_lies_there_twice_is_said(folder, state):
    (folder / "model-00002-of-00002.bin").write_bytes(saved(state))
    with pytest.raises(
        SpError, match=r"'conv\.weight' lies in two parts, model-00001-of-00002\.safetensors and model-00002"
    ):
        read(folder / INDEX)
    text = (folder / INDEX).read_text().replace('{"conv.weight"', '{"conv.weight": "x.bin", "conv.weight"')
    (folder / INDEX).write_text(text)
    with pytest.raises(SpError, match=r"'conv\.weight' is named twice"):
        read(folder / INDEX)


def test_what_the_index_does_not_name_is_left_out(folder):
    found = read(edited(folder, fc_bias=None))
    assert "fc.bias" not in found.tensors
    assert found.notes == ("Read from 2 files.", "1 tensors that the index does not name were left out (fc.bias).")


def test_limits_hold_over_all_parts(folder, state):
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != INDEX)
    with pytest.raises(SpError, match=r"with its parts has 0\.0 GB; a checkpoint may have at most"):
        read(folder / INDEX, Limits(file_gb=(size - 1) / 2**30))
    read(folder / INDEX, Limits(file_gb=size / 2**30, tensors=len(state)))
    with pytest.raises(SpError, match=f"holds {len(state)} tensors; at most {len(state) - 1}"):
        read(folder / INDEX, Limits(tensors=len(state) - 1))
    total = sum(4 * value.numel() for value in state.values()) + 4
    with pytest.raises(SpError, match="GB of weights in float32"):
        read(folder / INDEX, Limits(weights_gb=(total - 1) / 2**30))
    index = {"weight_map": {str(place): f"{place}.bin" for place in range(300)}}
    with pytest.raises(SpError, match="names 300 files; at most 200 are read"):
        read_bytes(json.dumps(index).encode())


def test_parts_are_as_safe_as_any_file(folder, state):
    part = folder / "model-00002-of-00002.bin"
    second = {key: value for key, value in state.items() if not key.startswith("conv")}
    part.write_bytes(saved({"state_dict": second, "x": Sings()}))
    with pytest.raises(SpError, match=r"model-00002-of-00002\.bin holds Python objects \((posix|nt)\.system\)"):
        read(folder / INDEX)
    part.write_bytes((folder / INDEX).read_bytes())
    with pytest.raises(SpError, match=r"names the index 'model-00002-of-00002\.bin' as a part"):
        read(folder / INDEX)


def test_one_part_alone_says_so(folder):
    found = read(folder / "model-00001-of-00002.safetensors")
    assert found.notes == (f"This is part 1 of 2; open {INDEX} beside it to read all of them.",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"architectures": ["ResNet"], "depths": [3]}',
            r"is a JSON text, not weights \(keys: architectures, depths\)",
        ),
        ('{"weight_map": {}}', "is a JSON text, not weights"),
        ('{"weight_map": {"a": 1}}', "'weight_map' does not name files"),
        ('{"weight_map": {"a": "b.bin"}', "damaged or incomplete"),
        ('{"a": ' + "[" * 100_000, "damaged or incomplete"),
        ('{"a": [' + "{}," * 30_000 + "{}]}", "holds 30001 tensors|holds 30002 tensors"),
    ],
)
def test_other_texts_are_named(text, message):
    with pytest.raises(SpError, match=message):
        read_bytes(text.encode(), "config.json")
