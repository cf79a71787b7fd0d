"""Small files of every kind that is read, and of some that are refused: what the mutations start from."""

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tests.fuzz import messages

LARGEST_WILD = 600_000  # bytes: larger ones only take longer


class Sings:
    """A canary: whoever unpickles it runs a command."""

    def __reduce__(self):
        return (os.system, ("echo executed >&2",))


def saved(content, legacy=False, protocol=2) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return _numbered(buffer.getvalue()) if legacy else buffer.getvalue()


def _numbered(data: bytes) -> bytes:
    """A legacy file names its storages by their addresses; here by number, the same in every process."""
    known: dict[bytes, bytes] = {}

    def name(found: re.Match[bytes]) -> bytes:
        if found[1][0] != len(found[2]):
            return found[0]
        return b"X\x0f\0\0\0" + known.setdefault(found[2], b"%015d" % len(known))

    return re.sub(rb"X(.)\0\0\0(\d{12,18})", name, data, flags=re.DOTALL)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1), fc=nn.Conv2d(4, 2, 1))
    ).eval()


def rezipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without today's date
    return buffer.getvalue()


def exported() -> bytes:
    """What ``torch.export.save`` writes, by hand: the real one takes seconds to import."""
    meta = {
        "dtype": 7, "sizes": [{"as_int": 4}, {"as_int": 3}], "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip
    config = {"config": {"fc.weight": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta}}}
    return rezipped(
        {
            "net/data/weights/weight_0": torch.rand(4, 3).numpy().tobytes(),
            "net/data/weights/model_weights_config.json": json.dumps(config).encode(),
            "net/archive_format": b"pt2",
            "net/models/model.json": b"{}",
        }
    )


def onnx_file() -> bytes:
    dice = np.random.default_rng(0)
    weights = [
        messages.tensor("conv.weight", dice.random((4, 3, 3, 3), "float32")),
        messages.tensor("conv.bias", dice.random(4, "float32"), "float"),
        messages.tensor("onnx::Gemm_3", dice.random((4, 2), "float32")),
        messages.tensor("q", dice.integers(-99, 99, (2, 4), "int8"), "int32"),
        messages.tensor("s", dice.random(2, "float32"), "float one by one"),
        messages.tensor("h", dice.random((2, 2)).astype("float16"), "int32"),
    ]
    nodes = [
        messages.node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], "/conv/Conv"),
        messages.node("Gemm", ["a", "onnx::Gemm_3"], ["b"], "/fc/Gemm"),
        messages.node("DequantizeLinear", ["q", "s"], ["w"], axis=0),
        messages.node("MatMul", ["b", "w"], ["y"]),
    ]
    return messages.model(nodes, weights)


def quantised() -> dict:
    weight = torch.quantize_per_channel(
        torch.randn(4, 3), torch.rand(4).double() + 0.1, torch.zeros(4).long(), 0, torch.qint8
    )
    whole = torch.quantize_per_tensor(torch.randn(3), 0.1, 3, torch.quint8)
    return {
        "fc._packed_params._packed_params": (weight, torch.zeros(4)),
        "fc.scale": torch.tensor(0.1),
        "a.weight": whole,
    }


def sharded(state) -> tuple[bytes, dict[str, bytes]]:
    first = {key: value for key, value in state.items() if key.startswith("conv")}
    second = {key: value for key, value in state.items() if not key.startswith("conv")}
    parts = {
        "model-00001-of-00002.safetensors": safetensors.torch.save(first),
        "model-00002-of-00002.bin": saved(second),
    }
    where = {key: name for name, part in zip(parts, (first, second), strict=True) for key in part}
    return json.dumps({"metadata": {"total_size": 9}, "weight_map": where}).encode(), parts


@cache
def seeds(wild: str | None = None) -> dict[str, bytes]:
    """Every seed by name; those found in the wild too when their folder is given."""
    net = network()
    state = net.state_dict()
    adam = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    wrapped = {"state_dict": state, "epoch": 3, "optimizer": adam, "args": Namespace(lr=0.1), "acc": np.float64(0.5)}
    made = {
        "zip": saved(state),
        "legacy": saved(state, legacy=True),
        "wrapped": saved(wrapped),
        "wrapped legacy": saved(wrapped, legacy=True),
        "protocol 4": saved(wrapped, protocol=4),
        "half, strided, tied": saved(
            {"a": torch.rand(4, 4).half().t(), "b": state["conv.weight"], "c": state["conv.weight"]}
        ),
        "quantised": _quietly(lambda: saved(quantised())),
        "odd types": saved(
            {"a": torch.rand(3).to(torch.float8_e4m3fn), "b": torch.eye(3).to_sparse(), "c": torch.rand(2, 2)}
        ),
        "whole model": saved(net),
        "whole model legacy": _quietly(lambda: saved(net, legacy=True)),
        "canary": saved({"state_dict": state, "x": Sings()}),
        "canary legacy": saved({"state_dict": state, "x": Sings()}, legacy=True),
        "canary pickle": pickle.dumps({"x": Sings()}, 2),
        "safetensors": safetensors.torch.save(dict(state), {"epoch": "3"}),
        "onnx": onnx_file(),
        "exported": exported(),
        "index": sharded(state)[0],
    }
    made |= _quietly(scripts)
    if wild:
        files = (path for path in sorted((Path(wild) / "checkpoints").iterdir()) if path.stat().st_size < LARGEST_WILD)
        made |= {path.name: path.read_bytes() for path in files}
    return made


def scripts() -> dict[str, bytes]:
    found = {}
    for name, make in (
        ("script", lambda: torch.jit.script(network())),
        ("trace", lambda: torch.jit.trace(network(), torch.zeros(1, 3, 8, 8))),
        ("frozen", lambda: torch.jit.freeze(torch.jit.script(network()))),
    ):
        buffer = io.BytesIO()
        torch.jit.save(make(), buffer)
        with zipfile.ZipFile(buffer) as archive:  # what helps a debugger differs from run to run
            found[name] = rezipped({item: archive.read(item) for item in archive.namelist() if "debug" not in item})
    return found


def _quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
