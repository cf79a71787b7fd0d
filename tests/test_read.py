"""Reading checkpoints: every container, every wrapping, and nothing but SpError for the rest."""

import io
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from sp_core.checkpoints import archives, inert, names, pickled, stored
from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.read import Checkpoint, read, read_bytes
from sp_core.errors import SpError
from tests.fuzz.seeds import quantised

ROOT = Path(__file__).resolve().parents[1]


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


def legacy_file(body: bytes, storages=()) -> bytes:
    head = pickle.dumps(pickled.LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    return head + body + pickle.dumps([key for key, _ in storages], 2) + b"".join(data for _, data in storages)


def test_memory_bombs_are_refused():
    # torch's own safe reader would allow this global, and fill 100 GB from 60 bytes.
    bomb = b"\x80\x02c__builtin__\nbytearray\n\x8a\x08" + struct.pack("<q", 10**11) + b"\x85R."
    with pytest.raises(SpError, match=r"builtins\.bytearray"):
        read_bytes(legacy_file(bomb))


def test_pickles_that_grow_while_read_are_stopped():
    """Containers that hold themselves or one another many times: small, and endless to print, compare or walk."""
    doubled = b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 5 + b"."
    for body in (
        doubled,
        b"\x80\x02" + b"]" + b"\x85" * 50_000 + b".",  # tuples in tuples
        b"\x80\x02" + b"(" * 50_000 + b".",
        b"\x80\x02}q\x00(" + b"".join(b"X\x02\x00\x00\x00%02dh\x00" % place for place in range(99)) + b"u.",
    ):
        with pytest.raises(SpError):
            read_bytes(legacy_file(body))
    with pytest.raises(SpError, match=r"has more than 1000 pickled parts \(SP_MAX_STEPS changes that\)"):
        read_bytes(legacy_file(b"\x80\x02" + b"N0" * 1000 + b"N."), limits=Limits(steps=1000))
    with pytest.raises(SpError, match=r"nests containers more than 100 deep \(SP_MAX_NESTING changes that\)"):
        read_bytes(legacy_file(b"\x80\x02" + b"(" * 101 + b"t" * 101 + b"."))


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
        (b"hello world", r"\(11 bytes\) is neither a PyTorch checkpoint nor a \.safetensors or ONNX file"),
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


def test_other_archives_say_what_they_hold():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photos/cat.jpg", b"x")
    with pytest.raises(SpError, match=r"no PyTorch checkpoint: it holds photos/cat\.jpg"):
        read_bytes(buffer.getvalue())


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(SpError, match=r"is a directory; give the checkpoint file inside it"):
        read(tmp_path)
    with pytest.raises(SpError, match=r"none\.pth cannot be opened: No such file"):
        read(tmp_path / "none.pth")
    with pytest.raises(SpError, match=r"cannot be opened"):
        read("a\0b.pth")
    with pytest.raises(SpError, match=r"cannot be opened"):
        read("x" * 5000)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(file_gb=1e-7), r"a checkpoint may have at most 1e-07 GB \(SP_MAX_FILE_GB changes that\)"),
        (Limits(tensors=3), r"holds 9 tensors; at most 3 are read \(SP_MAX_TENSORS changes that\)"),
        (
            Limits(weights_gb=1e-7),
            r"GB of weights in float32; at most 1e-07 GB are read \(SP_MAX_WEIGHTS_GB changes that",
        ),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_limits_are_checked_before_reading(form, limits, message, state, monkeypatch):
    half = {key: value.half() for key, value in state.items()}
    data = safetensors.torch.save(half) if form == "safetensors" else saved(half, form == "legacy")
    read_bytes(data)
    monkeypatch.setattr(stored, "_read_into", lambda *_: pytest.fail("a limit was checked after reading"))
    with pytest.raises(SpError, match=message):
        read_bytes(data, limits=limits)


def test_more_limits(state):
    with pytest.raises(
        SpError, match=r"holds \d+ parts; a checkpoint may have at most 5 \(SP_MAX_MEMBERS changes that"
    ):
        read_bytes(saved(state), limits=Limits(members=5))
    names = {f"{'long' * 50}{place}": torch.zeros(1) for place in range(6000)}
    for data in (saved(names), saved(names, True), safetensors.torch.save(names)):
        with pytest.raises(SpError, match=r"lists more than 1 MB of names.*SP_MAX_HEADER_MB changes that"):
            read_bytes(data, limits=Limits(header_mb=1))
    tied = {f"w{place}": state["conv.weight"] for place in range(200)}  # each name counts: whoever uses them may copy
    with pytest.raises(SpError, match="of weights in float32"):
        read_bytes(saved(tied), limits=Limits(weights_gb=50_000 / 2**30))


def test_limits_come_from_the_environment(monkeypatch, state):
    monkeypatch.setenv("SP_MAX_TENSORS", "3")
    with pytest.raises(SpError, match=r"holds 9 tensors; at most 3"):
        read_bytes(saved(state))
    for wrong in ("many", "-1", "nan", "inf", "0"):
        monkeypatch.setenv("SP_MAX_TENSORS", wrong)
        with pytest.raises(SpError, match=rf"SP_MAX_TENSORS must be a number above 0; it is '{wrong}'"):
            read_bytes(saved(state))


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


# Every file found in the wild: the container, how many tensors, a phrase of the notes; or a phrase of the refusal.
FOUND_IN_THE_WILD = {
    "ai85_cifar10_qat8.pth.tar": (
        "zip",
        22,
        r"66 settings of quantisation.*mentions torch\.optim\.adam\.Adam; nothing of",
    ),
    "captum_cifar_torchvision.pt": ("legacy", 10, ""),
    "captum_titanic_model.pt": ("legacy", 6, ""),
    "chen_resnet_cifar_misnamed.t7": ("legacy", 107, ""),
    "espnetv2_pascal_seg.pth": ("legacy", 526, ""),
    "face_slim_Final.pth": ("legacy", 198, ""),
    "fashionmnist_mlp_legacy.tar": ("legacy", 10, ""),
    "flax_msgpack_resnet.ckpt": "looks like msgpack",
    "gasoonjia_cifar_dp_legacy.pth": ("legacy", 776, ""),
    "lightning_custom_class_gcnn.ckpt": r"(?s)\(__main__\.CyclicGroup\).*content\['state_dict'\].*28 tensors \(27",
    "lightning_densenet.ckpt": ("legacy", 315, ""),
    "lightning_resnet.ckpt": ("legacy", 120, ""),
    "mlperf_tiny_resnet_cifar10_keras.h5": "Keras or HDF5",
    "mtcnn_det1.caffemodel": r"protocol buffer \(Caffe",
    "net_params.pkl": ("legacy", 4, ""),
    "picklescan_bad_pytorch.pt": "is a PNG picture",
    "picklescan_new_pytorch_model.bin": "one tensor of shape 3×4",
    "picklescan_not_a_pickle.bin": r"\(7 bytes\) is neither",
    "pytorx_mnist_model_best.pth.tar": ("legacy", 60, ""),
    "resnet20-12fca82f.th": ("legacy", 97, ""),
    "resnet32-d509ac18.th": ("legacy", 157, ""),
    "super_resolution.onnx": ("onnx", 8, "ONNX file: only its weights.*8 weights are named after the layers"),
    "whole_model_net.pkl": r"(?s)a whole Python model \(torch\.nn\.mod.*model\.state_dict.*4 tensors \(4 float32\) in",
}


@pytest.mark.parametrize("name", FOUND_IN_THE_WILD)
def test_checkpoints_found_in_the_wild(name, real_data):
    path, expected = real_data / "checkpoints" / name, FOUND_IN_THE_WILD[name]
    if isinstance(expected, str):
        with pytest.raises(SpError, match=expected):
            read(path)
        return
    found = read(path)
    assert (found.container, len(found.tensors)) == expected[:2]
    assert re.search(expected[2], " ".join(found.notes))


def test_none_of_the_wild_is_left_out(real_data):
    assert {path.name for path in (real_data / "checkpoints").iterdir()} == set(FOUND_IN_THE_WILD)
    facts = read(real_data / "checkpoints" / "resnet20-12fca82f.th").metadata
    assert facts["best_prec1"] == pytest.approx(91.78, abs=0.01)


# --- the reader of pickles against torch's own ------------------------------------------------------------------------


def agree(ours, theirs):
    """How many tensors of ``theirs`` (as torch made them) ``ours`` describes rightly; everything must."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, stored.Stored)
        stored.check(ours, "x", "x")
        wanted = theirs.detach().dequantize() if theirs.is_quantized else theirs.detach()
        torch.testing.assert_close(
            stored.read_tensor(ours),
            wanted.float() if wanted.is_floating_point() else wanted,
            rtol=0,
            atol=0,
            equal_nan=True,
        )
        return 1
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        return sum(agree(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        return sum(agree(one, other) for one, other in zip(ours, theirs, strict=True))
    assert ours == theirs or isinstance(ours, inert.Global)
    return 0


def described(path):
    file = io.BytesIO(path.read_bytes())
    if zipfile.is_zipfile(path):
        return pickled.open_zip(archives.Archive(file, path.name, Limits()))
    return pickled.open_legacy(file, path.name, Limits())


@pytest.mark.parametrize("name", [name for name, row in FOUND_IN_THE_WILD.items() if row[0] in {"zip", "legacy"}][1:])
def test_the_wild_is_read_as_torch_reads_it(name, real_data):
    path = real_data / "checkpoints" / name
    assert agree(described(path).content, torch.load(path, map_location="cpu", weights_only=True)) > 0


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_odd_tensors_are_read_as_torch_reads_them(legacy, tmp_path):
    torch.manual_seed(2)
    base = torch.randn(6, 5, 4, 3)
    content = {
        "channels last": base.to(memory_format=torch.channels_last),
        "transposed": base[0, 0].t(),
        "permuted": base.permute(3, 1, 0, 2),
        "steps": base[::2, 1:3],
        "repeated": torch.zeros(3).expand(1, 3),
        "one": base[:1, :1, :1, :1],
        "number": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "types": [torch.arange(5).to(kind) for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool)],
        "reals": [torch.randn(7, 3).to(kind).t() for kind in (torch.float16, torch.bfloat16, torch.float64)],
        "parameter": nn.Parameter(base[1]),
        "words": ["a", 1, 2.5, None, True, (1, 2), {3: "x"}, 2**70, -5, torch.Size([1, 2])],
    }
    path = tmp_path / "odd.pth"
    path.write_bytes(saved(content, legacy))
    assert agree(described(path).content, torch.load(path, weights_only=True)) == 17


def test_large_tensors_are_read_in_blocks(monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 10)
    weight = torch.randn(7, 5, 3, 3)
    content = {
        "a": weight.half(),
        "b": weight.to(memory_format=torch.channels_last),
        "c": torch.randn(30, 20).double().t(),
    }
    content["c"][3, 4] = float("nan")
    found = read_bytes(saved(content))
    assert torch.equal(found.tensors["a"], weight.half().float()) and torch.equal(found.tensors["b"], weight)
    torch.testing.assert_close(found.tensors["c"], content["c"].float(), rtol=0, atol=0, equal_nan=True)
    assert "1 tensors hold NaN or infinity (c)" in found.notes[-1]


def test_no_name_of_a_file_is_looked_up(state, tmp_path):
    """Python tells of every name that an unpickler looks up, and of every import; reading asks for none."""
    path = tmp_path / "x.pth"
    path.write_bytes(
        saved({"state_dict": state, "who": np.float64(2.5), "where": Path("a/b"), "args": Namespace(lr=0.1)})
    )
    probe = (
        "import sys, pickle, torch\n"
        "from sp_core.checkpoints.read import read\n"
        f"read({str(path)!r})\n"
        "heard = []\n"
        "sys.addaudithook(lambda event, _: heard.append(event))\n"
        f"found = read({str(path)!r})\n"
        "quiet = sorted(set(heard))\n"
        "try: torch.load({!r}, weights_only=False)\n"
        "except Exception: pass\n"
        "quiet = [event for event in quiet if event not in {'open', 'builtins.id'}]\n"
        "print(quiet, 'pickle.find_class' in heard, found.metadata)"
    ).replace("{!r}", repr(str(path)))
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True {'who': 2.5, 'where': 'a/b', 'args': {'lr': 0.1}}"


# --- what people wrap round their weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"_fsdp_wrapped_module.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: key.replace("conv.", "conv._checkpoint_wrapped_module."),
        lambda key: f"_forward_module._fsdp_wrapped_module.{key.replace('.', '._orig_mod.', 1)}",
    ],
)
def test_wrapping_inside_names(wrap, state):
    assert same(read_bytes(saved({wrap(key): value for key, value in state.items()})).tensors, state)


def test_averaged_models(state):
    averaged = {f"module.{key}": value + 1 for key, value in state.items()} | {"n_averaged": torch.tensor(5)}
    found = read_bytes(saved(averaged))
    assert same(found.tensors, {key: value + 1 for key, value in state.items()})
    assert found.notes == ("1 counters of averaging were left out (n_averaged).",)
    both = {f"online_model.{key}": value for key, value in state.items()}
    both |= {f"ema_model.{key}": value + 1 for key, value in state.items()} | {"initted": torch.ones(())}
    found = read_bytes(saved(both))
    assert same(found.tensors, {key: value + 1 for key, value in state.items()})
    assert "averaged weights ('ema_model.…'); the 10 others were left out" in found.notes[0]


def test_state_dicts_in_lists_and_side_by_side(state):
    assert same(read_bytes(saved([{"lr": 0.1}, state])).tensors, state)
    assert same(read_bytes(saved({"models": [state, {"a": torch.zeros(2)}]})).tensors, state)
    small = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(1)}
    found = read_bytes(saved({"critic": small, "generator": state}))
    assert same(found.tensors, state)
    assert "The weights under 'generator' were read; critic beside them were not." in found.notes


def test_tied_weights_are_one_tensor(state):
    for legacy in (False, True):
        found = read_bytes(
            saved({"a": state["conv.weight"], "b": state["conv.weight"], "c": state["fc.weight"]}, legacy)
        )
        assert found.tensors["a"] is found.tensors["b"]


def test_quantised_layers_are_unpacked():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = quantised()
        data = saved(content)
    found = read_bytes(data)
    weight = content["fc._packed_params._packed_params"][0]
    torch.testing.assert_close(found.tensors["fc.weight"], weight.dequantize())
    torch.testing.assert_close(found.tensors["a.weight"], content["a.weight"].dequantize())
    assert found.tensors.keys() == {"fc.weight", "fc.bias", "a.weight"}
    assert "2 quantised tensors were turned back into float32." in found.notes


def test_words_that_cannot_be_written_are_cleaned():
    found = read_bytes(saved({"state_dict": {"b\0.weight": torch.zeros(2, 2), "w" * 400: torch.zeros(2)}, "n": 2**99}))
    assert list(found.tensors) == ["b?.weight", "w" * 300 + "…"] and found.metadata == {}
    with pytest.raises(SpError, match="holds a name of 2001 characters"):
        read_bytes(saved({"w" * 2001: torch.zeros(2, 2)}))
    half = b"X\x03\0\0\0\xed\xa0\x80"  # half of a character: Python keeps it, no file and no page can
    for body in (b"}" + half + b"N(s.", b"}" + half + b"N" + b"s.", b"c__main__\n" + b"T\n" + half + b"\x85R."):
        with pytest.raises(SpError) as caught:
            read_bytes(legacy_file(b"\x80\x02" + body))
        str(caught.value).encode()


def test_both_byte_orders():
    data = _rezipped(
        saved({"w": torch.zeros(2, 2), "v": torch.zeros(1)}), lambda name, c: b"big" if "byteorder" in name else c
    )
    with pytest.raises(SpError, match=r"other byte order \(big-endian\); save it there as \.safetensors"):
        read_bytes(data)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"a": torch.zeros(2), "b": torch.randn(300, 300)}))
    module = sys.modules["sp_core.checkpoints.read"]
    tidy = module.tidy
    monkeypatch.setattr(module, "tidy", lambda tensors: (os.truncate(path, 100), tidy(tensors))[1])
    with pytest.raises(SpError, match="became shorter while it was read; wait until it is written"):
        read(path)


def test_peak_memory_is_that_of_the_weights(tmp_path):
    """In a fresh process: what it grows by while it reads, mapped pages included, against the weights as float32."""
    torch.manual_seed(0)
    state = {f"{place}.weight": torch.randn(256, 256, 3, 3) for place in range(24)}  # 57 MB
    size = sum(tensor.nbytes for tensor in state.values())
    adam = {place: {key: torch.zeros(256, 256, 9) for key in ("exp_avg", "exp_avg_sq")} for place in range(24)}
    wrapped = {"state_dict": state, "optimizer": {"state": adam, "param_groups": []}}
    files = {
        "zip": saved(wrapped),
        "legacy": saved(wrapped, True),
        "safetensors": safetensors.torch.save(state),
        "half": saved({key: value.half() for key, value in state.items()}),
        "strided": saved({key: value.to(memory_format=torch.channels_last) for key, value in state.items()}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    probe = f"""
import re
from pathlib import Path
from sp_core.checkpoints.read import read
from tests.fuzz.seeds import network, saved
(Path({str(tmp_path)!r}) / "small").write_bytes(saved(network().state_dict()))
read({str(tmp_path)!r} + "/small")  # warm
for name in {list(files)!r}:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    kilobytes = lambda key: int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    before = kilobytes("VmRSS")
    found = read({str(tmp_path)!r} + "/" + name)
    print((kilobytes("VmHWM") - before) * 1024)
    del found
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peaks = dict(zip(files, map(int, done.stdout.split()), strict=True))
    assert peaks["zip"] > 0.9 * size, "the measurement itself"
    assert all(peak < 1.3 * size for peak in peaks.values()), peaks
