"""Reading checkpoints: every container, every wrapping, and nothing but SpError for the rest."""

import io
import pickle
import random
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from sp_core.checkpoints import containers, names
from sp_core.checkpoints.read import Checkpoint, read, read_bytes
from sp_core.errors import SpError


def saved(content, legacy=False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def state() -> OrderedDict:
    torch.manual_seed(1)
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))
    return net.state_dict()


def same(found, state, prefix=""):
    return found.keys() == {prefix + key for key in state} and all(
        torch.equal(found[prefix + key], value) for key, value in state.items()
    )


WRAPPINGS = {
    "bare": lambda s: s,
    "plain dict": dict,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "best_acc1": 0.5},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": []}},
    "net": lambda s: {"net": s, "acc": 91.5},
    "model_state_dict": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {}},
        "loss": torch.tensor(0.1),
    },
    "params": lambda s: {"params": s},
    "nested": lambda s: {"checkpoint": {"model": {"state_dict": s}}},
    "lightning": lambda s: {
        "state_dict": s,
        "epoch": 1,
        "global_step": 2,
        "hyper_parameters": {"lr": 0.1, "name": "x"},
    },
    "unknown": lambda s: {"student": s, "optimizer": {"a": torch.zeros(2)}, "step": 5},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings(wrapping, legacy, state, tmp_path):
    path = tmp_path / "x.anything"
    path.write_bytes(saved(WRAPPINGS[wrapping](state), legacy))
    found = read(path)
    assert same(found.tensors, state) and found.container == ("legacy" if legacy else "zip")
    assert not any("tensor" in str(value) for value in found.metadata.values())


def test_averaged_weights_are_preferred_and_said(state):
    averaged = {key: value + 1 for key, value in state.items()}
    found = read_bytes(saved({"state_dict": state, "state_dict_ema": averaged}))
    assert same(found.tensors, averaged) and "averaged" in found.notes[0]


@pytest.mark.parametrize("data", ["new", "old", "st"])
def test_endings_do_not_matter(data, state):
    content = {"new": saved(state), "old": saved(state, True), "st": safetensors.torch.save(dict(state))}[data]
    for name in ("a.safetensors", "a.pth", "a.t7", "a.tar", "a"):
        assert same(read_bytes(content, name).tensors, state)


def test_facts_of_training_are_kept_small(state):
    found = read_bytes(
        saved(
            {
                "state_dict": state,
                "epoch": 3,
                "acc": torch.tensor(0.5),
                "args": {"lr": 0.1, "big": "x" * 999},
                "log": [1] * 9,
            }
        )
    )
    assert found.metadata == {"epoch": 3, "acc": 0.5, "args": {"lr": 0.1}}


def test_parts_that_were_wrapped_lose_their_prefix(state):
    wrapped = {
        key.replace("conv.", "conv.module.").replace("fc.", "fc._orig_mod."): value for key, value in state.items()
    }
    wrapped |= {"conv.total_ops": torch.zeros(1, dtype=torch.float64), "conv.total_params": torch.zeros(1)}
    found = read_bytes(saved(wrapped))
    assert same(found.tensors, state) and "2 counters" in found.notes[0]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module.model.", "net.", "backbone.", "model.net."]
)
def test_variants_reach_the_bare_names(prefix, state):
    found = [variant for variant, _ in names.variants({prefix + key: value for key, value in state.items()})]
    assert any(same(variant, state) for variant in found)


def test_variants_keep_or_leave_out_what_lies_beside(state):
    tensors = {"model." + key: value for key, value in state.items()} | {"loss.weight": torch.ones(2)}
    found = list(names.variants(tensors))
    assert any(same(variant, state) and "loss.weight" in note for variant, note in found)
    assert any(variant.keys() == {*state, "loss.weight"} for variant, _ in found)


def test_old_densenet_names():
    tensors, _ = names.tidy({"features.denseblock1.denselayer2.norm.1.running_mean": torch.zeros(2)})
    assert list(tensors) == ["features.denseblock1.denselayer2.norm1.running_mean"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_become_float32_and_say_so(dtype, state):
    converted = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    found = read_bytes(saved(converted))
    kind = str(dtype).removeprefix("torch.")
    assert all(value.dtype in {torch.float32, torch.int64} for value in found.tensors.values())
    assert found.notes == (f"8 tensors were {kind} and became float32.",)
    torch.testing.assert_close(found.tensors["conv.weight"], converted["conv.weight"].float())


def test_broken_numbers_are_said(state):
    broken = dict(state) | {"fc.bias": torch.tensor([float("nan"), 1.0])}
    assert "1 tensors hold NaN or infinity (fc.bias)" in read_bytes(saved(broken)).notes[0]


def test_copies_do_not_depend_on_the_file(state, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(saved(state))
    found = read(path)
    before = {key: value.clone() for key, value in found.tensors.items()}
    path.write_bytes(b"\0" * path.stat().st_size)  # training writes over its checkpoint, in place
    assert same(found.tensors, before)


def test_shared_and_strided_weights(state):
    weight = torch.randn(6, 4)
    found = read_bytes(saved({"a.weight": weight, "b.weight": weight, "c.weight": weight.t(), "d.weight": weight[2:4]}))
    assert torch.equal(found.tensors["b.weight"], weight) and torch.equal(found.tensors["c.weight"], weight.t())
    assert found.tensors["c.weight"].is_contiguous() and found.tensors["d.weight"].untyped_storage().nbytes() == 32


# --- what is refused -------------------------------------------------------------------------------------------------


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "protocol 4"])
def test_code_in_a_pickle_never_runs(form, state, tmp_path):
    canary = tmp_path / "executed"
    content = {"state_dict": state, "extra": Canary(canary)}
    if form in {"zip", "legacy"}:
        data = saved(content, form == "legacy")
    else:
        data = pickle.dumps(Canary(canary), protocol=2 if form == "plain" else 4)
    path = tmp_path / "evil.pth"
    path.write_bytes(data)
    with pytest.raises(
        SpError, match=r"(?s)could run code; save tensors only.*torch\.save\(state, 'weights\.pth'\)"
    ) as caught:
        read(path)
    assert "io.open" in str(caught.value) or "_io" in str(caught.value)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary))).close()
    assert canary.exists()  # the canary sings: it would have been executed


def test_whole_models_are_refused_with_their_classes():
    with pytest.raises(SpError, match=r"(?s)holds a whole Python model \(.*torch\.nn\.modules.*and \d+ more\)"):
        read_bytes(
            saved(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Linear(2, 2)))
        )


def test_memory_bombs_are_refused():
    # torch's own safe reader would allow this global, and fill 100 GB from 60 bytes.
    bomb = b"\x80\x02c__builtin__\nbytearray\n\x8a\x08" + struct.pack("<q", 10**11) + b"\x85R."
    data = containers._LEGACY_MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + bomb
    with pytest.raises(SpError, match=r"builtins\.bytearray"):
        read_bytes(data)


def test_views_larger_than_their_storage_are_refused():
    with pytest.raises(SpError, match=r"'w' claims 400000000 bytes but the file holds 4 for it"):
        read_bytes(saved({"w": torch.zeros(1).expand(10_000, 10_000), "v": torch.zeros(2)}))


def _rezipped(data: bytes, change, compression=zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for member in old.infolist():
            content = change(member.filename, old.read(member))
            if content is not None:
                new.writestr(member.filename, content)
    return out.getvalue()


def test_records_shorter_than_the_pickle_says_are_refused():
    """Without mapping, torch 2 reads past the end of such a record, into whatever lies behind it in memory."""
    data = saved({"w": torch.arange(1000.0), "v": torch.zeros(3)})
    short = _rezipped(data, lambda name, content: content[:40] if name.endswith("data/0") else content)
    try:
        found = read_bytes(short)
    except SpError:
        return
    assert found.tensors["w"].abs().max() <= 1000 or not torch.isfinite(found.tensors["w"]).all()  # bytes of the file


def test_compressed_and_overlapping_archives_are_refused(state):
    data = saved(state)
    with pytest.raises(SpError, match=r"compressed zip archive, which torch.save never writes"):
        read_bytes(_rezipped(data, lambda name, content: content, zipfile.ZIP_DEFLATED))
    bomb = bytearray(_rezipped(data, lambda name, content: content))
    at = bomb.rindex(b"PK\x01\x02")
    bomb[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)  # sizes in the central directory
    with pytest.raises(SpError, match=r"claims to hold more than that|damaged"):
        read_bytes(bytes(bomb))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"up\.pth is empty \(0 bytes\)"),
        (b"hello world", r"\(11 bytes\) is neither a PyTorch checkpoint nor a \.safetensors file"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer.*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "Keras or HDF5"),
        (b"\x1f\x8b" + b"\0" * 99, "compressed with gzip"),
        (b"\x80", "neither"),
        (b"PK\x03\x04" + b"\0" * 99, "damaged or incomplete"),
        (struct.pack("<Q", 10**6) + b'{"a"', "cut off: its header alone needs"),
        (struct.pack("<Q", 2) + b"{}" + b"junk", "should have 10 bytes but has 14"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "damaged or incomplete"),
        (pickle.dumps({"a": [1, 2]}, 2), "Python pickle of plain values that torch.save did not write"),
        (saved(torch.zeros(3, 4)), "holds one tensor of shape 3×4"),
        (saved({"epoch": 3}), r"a dictionary without tensors \(epoch\)"),
        (saved([torch.zeros(2)]), "holds a list, not the named weights"),
    ],
)
def test_junk_says_what_it_is(data, message):
    with pytest.raises(SpError, match=message):
        read_bytes(data, "up.pth")


def test_other_archives_say_what_they_hold(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photos/cat.jpg", b"x")
    with pytest.raises(SpError, match=r"no PyTorch checkpoint: it holds photos/cat\.jpg"):
        read_bytes(buffer.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
        torch.jit.save(script, str(tmp_path / "s.pt"))
    with pytest.raises(SpError, match=r"TorchScript program"):
        read(tmp_path / "s.pt")


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(SpError, match=r"is a directory; give the checkpoint file inside it"):
        read(tmp_path)
    with pytest.raises(SpError, match=r"none\.pth cannot be opened: No such file"):
        read(tmp_path / "none.pth")
    with pytest.raises(SpError, match=r"cannot be opened"):
        read("a\0b.pth")
    with pytest.raises(SpError, match=r"cannot be opened"):
        read("x" * 5000)


def test_limits_are_checked_before_reading(monkeypatch, state):
    monkeypatch.setattr(containers, "MAX_FILE_BYTES", 1000)
    with pytest.raises(SpError, match=r"a checkpoint may have at most"):
        read_bytes(saved(state))
    monkeypatch.undo()
    module = sys.modules["sp_core.checkpoints.read"]
    monkeypatch.setattr(module, "MAX_TENSORS", 3)
    for data in (saved(state), safetensors.torch.save(dict(state))):
        with pytest.raises(SpError, match=r"holds 9 tensors; at most 3 are read"):
            read_bytes(data)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_TENSOR_BYTES", 100)
    with pytest.raises(SpError, match=r"GB of weights in float32"):
        read_bytes(saved({key: value.half() for key, value in state.items()}))


def test_uploads_leave_no_file_behind(state):
    before = set(Path(tempfile.gettempdir()).glob("sp-upload-*"))
    read_bytes(saved(state))
    with pytest.raises(SpError):
        read_bytes(saved(state)[:-50])
    assert set(Path(tempfile.gettempdir()).glob("sp-upload-*")) == before


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_give_a_sentence_or_tensors(form, state):
    """A few hundred seeded mutations: bits turned, bytes cut out, pieces doubled, the end cut off."""
    small = {key: value for key, value in state.items() if value.numel() < 200}
    whole = safetensors.torch.save(small) if form == "safetensors" else saved(small, form == "legacy")
    dice = random.Random(7)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[at] ^= 1 << dice.randrange(8)
                case 1:
                    del data[at : at + dice.randint(1, 40)]
                case 2:
                    data[at:at] = data[at : at + dice.randint(1, 40)]
                case 3:
                    data[at : at + 4] = struct.pack("<I", dice.choice([0, 1, 2**31 - 1, 2**32 - 1]))[: len(data) - at]
            if not data:
                data = bytearray(b"\0")
        try:
            found = read_bytes(bytes(data))
            outcomes["read"] += 1
            assert isinstance(found, Checkpoint)
        except SpError as error:
            outcomes["refused"] += 1
            assert "Traceback" not in str(error) and len(str(error)) < 900
    assert outcomes["refused"] > 20
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        with pytest.raises(SpError):
            read_bytes(whole[:end])


FOUND_IN_THE_WILD = {
    "ai85_cifar10_qat8.pth.tar": "torch.optim.adam.Adam",
    "captum_cifar_torchvision.pt": 10,
    "captum_titanic_model.pt": 6,
    "chen_resnet_cifar_misnamed.t7": 107,
    "espnetv2_pascal_seg.pth": 526,
    "face_slim_Final.pth": 198,
    "fashionmnist_mlp_legacy.tar": 10,
    "flax_msgpack_resnet.ckpt": "looks like msgpack",
    "gasoonjia_cifar_dp_legacy.pth": 776,
    "lightning_custom_class_gcnn.ckpt": "__main__.CyclicGroup",
    "lightning_densenet.ckpt": 315,
    "lightning_resnet.ckpt": 120,
    "mlperf_tiny_resnet_cifar10_keras.h5": "Keras or HDF5",
    "mtcnn_det1.caffemodel": "protocol buffer",
    "net_params.pkl": 4,
    "picklescan_bad_pytorch.pt": "is a PNG picture",
    "picklescan_new_pytorch_model.bin": "one tensor of shape 3×4",
    "picklescan_not_a_pickle.bin": r"\(7 bytes\) is neither",
    "pytorx_mnist_model_best.pth.tar": 60,
    "resnet20-12fca82f.th": 97,
    "resnet32-d509ac18.th": 157,
    "super_resolution.onnx": "protocol buffer",
    "whole_model_net.pkl": "whole Python model",
}


def test_checkpoints_found_in_the_wild(real_data):
    folder = real_data / "checkpoints"
    assert {path.name for path in folder.iterdir()} == set(FOUND_IN_THE_WILD)
    for name, expected in FOUND_IN_THE_WILD.items():
        if isinstance(expected, str):
            with pytest.raises(SpError, match=expected):
                read(folder / name)
        else:
            assert len(read(folder / name).tensors) == expected, name
    assert read(folder / "resnet20-12fca82f.th").metadata["best_prec1"] == pytest.approx(91.78, abs=0.01)
