"""Programs saved with their weights: TorchScript, exported programs (``.pt2``) and ``torch.package`` archives.

Only weights are read. ``torch.jit.load`` would parse, link and set up the code in the file; here the code is a text, of
which two lines a class are looked at: those that list the class's parameters and buffers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from sp_core.checkpoints.archives import Archive
from sp_core.checkpoints.inert import Made
from sp_core.checkpoints.names import clean
from sp_core.checkpoints.pickled import Described, zip_machine
from sp_core.checkpoints.refusals import contents
from sp_core.checkpoints.safetensors_file import parse_json
from sp_core.checkpoints.stand_ins import SCRIPT_STAND_INS
from sp_core.checkpoints.stored import Storage, Stored, stored
from sp_core.errors import SpError

_DECLARED = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*?)\]\n  __buffers__ = \[(.*?)\]$", re.M)
_CODE_BYTES = 4 * 2**20  # of one class's source
# The numbers of torch._export.serde.schema.ScalarType.
_EXPORTED = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16, 28: torch.uint16,
    29: torch.float8_e4m3fn, 30: torch.float8_e5m2, 31: torch.float8_e4m3fnuz, 32: torch.float8_e5m2fnuz,
}  # fmt: skip
PROGRAM_NOTE = "TorchScript program: only its weights were read, its code was not."


def open_program(archive: Archive) -> Described | None:
    """The weights of a program; None when the archive holds none (what ``torch.save`` wrote, or anything else).

    Raises:
        SpError: it is a program whose weights cannot be read without running it.
    """
    paths = archive.members
    root = next(iter(paths), "").partition("/")[0]
    if archive.root and (f"{archive.root}/constants.pkl" in paths or _holds(archive, f"{archive.root}/code/")):
        return _open_script(archive)
    if f"{root}/archive_format" in paths or _holds(archive, f"{root}/data/weights/"):
        return _open_exported(archive, root)
    if f"{root}/model.json" in paths:
        raise SpError(
            f"{archive.name} is a TorchScript program of before PyTorch 1.3; save its weights with an older PyTorch, "
            "in Python: torch.save(torch.jit.load(path).state_dict(), 'weights.pth')."
        )
    if "serialized_exported_program.json" in paths:
        raise SpError(
            f"{archive.name} is an exported program of before PyTorch 2.8; save its weights with the PyTorch that "
            "made it: torch.save(torch.export.load(path).state_dict, 'weights.pth')."
        )
    if f"{root}/.data/python_version" in paths or f"{root}/.data/extern_modules" in paths:
        raise _package(archive, root)
    return None


def _holds(archive: Archive, folder: str) -> bool:
    return any(path.startswith(folder) for path in archive.members)


# --- TorchScript ------------------------------------------------------------------------------------------------------


def _open_script(archive: Archive) -> Described:
    archive.span(f"{archive.root}/data.pkl")
    machine = zip_machine(archive, f"{archive.root}/data", SCRIPT_STAND_INS)
    content = machine.run(io.BytesIO(archive.content(f"{archive.root}/data.pkl")))
    notes = [PROGRAM_NOTE]
    tensors: dict[str, Stored] = {}
    if isinstance(content, Made):
        declared = _Declarations(archive)
        for name, tensor in _attributes(content, declared, machine.spend, archive.limits.nesting):
            tensors.setdefault(name, tensor)
    if not tensors and f"{archive.root}/constants.pkl" in archive.members:
        tensors = _constants(archive)
        if tensors:
            notes.append("The program was frozen: its weights lost their names; c0, c1 … are those of its code.")
    if not tensors:
        raise SpError(f"{archive.name} is a TorchScript program without weights; give the network that it was made of.")
    return Described("torchscript", tensors, {}, notes)


def _attributes(root: Made, declared: _Declarations, spend: Any, deepest: int) -> Iterator[tuple[str, Stored]]:
    """Every tensor of a tree of modules with the path of attributes to it, as ``state_dict()`` would name it."""
    waiting: list[tuple[str, Made, int]] = [("", root, 0)]
    while waiting:
        prefix, module, depth = waiting.pop()
        spend(1)
        if depth > deepest:
            continue  # modules that hold each other
        inner: list[tuple[str, Made, int]] = []
        if isinstance(module.state, dict):
            known = declared.of(module.maker_name)
            spend(len(module.state))
            for key, value in module.state.items():
                if not isinstance(key, str):
                    continue
                if isinstance(value, Stored) and (known is None or key in known):
                    yield prefix + key, value
                elif isinstance(value, Made):
                    # What a quantised layer packs is its own weight.
                    inner.append((prefix + ("" if key == "_packed_params" else f"{key}."), value, depth + 1))
        elif isinstance(module.state, tuple):
            tensors = [value for value in module.state[:100] if isinstance(value, Stored)]
            named = {"weight": [t for t in tensors if t.ndim > 1][:1], "bias": [t for t in tensors if t.ndim == 1][:1]}
            yield from ((prefix + key, tensor) for key, found in named.items() for tensor in found)
        waiting += reversed(inner)


class _Declarations:
    """Which attributes of a class are parameters and buffers, from its source text; a plain tensor is neither."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.sources: dict[str, dict[str, set[str]]] = {}

    def of(self, name: str) -> set[str] | None:
        """The names for ``__torch__.torch.nn.modules.conv.Conv2d``; None where the source does not say."""
        module, _, kind = name.rpartition(".")
        path = f"{self.archive.root}/code/{module.replace('.', '/')}.py"
        if path not in self.sources:
            self.sources[path] = self._read(path) if path in self.archive.members else {}
        return self.sources[path].get(kind)

    def _read(self, path: str) -> dict[str, set[str]]:
        text = self.archive.content(path, _CODE_BYTES).decode("utf-8", "replace")
        return {
            kind: set(re.findall(r'"([^"]+)"', parameters + buffers))
            for kind, parameters, buffers in _DECLARED.findall(text)
        }


def _constants(archive: Archive) -> dict[str, Stored]:
    machine = zip_machine(archive, f"{archive.root}/constants", SCRIPT_STAND_INS)
    content = machine.run(io.BytesIO(archive.content(f"{archive.root}/constants.pkl")))
    found = content if isinstance(content, (tuple, list)) else ()
    return {
        f"c{place}.weight" if value.ndim > 1 else f"c{place}": value
        for place, value in enumerate(found)
        if isinstance(value, Stored)
    }


# --- exported programs and packages -----------------------------------------------------------------------------------


def _open_exported(archive: Archive, root: str) -> Described:
    folder = f"{root}/data/weights/"
    configs = [path for path in archive.members if path.startswith(folder) and path.endswith("_config.json")]
    if len(configs) != 1:
        raise SpError(
            f"{archive.name} is an exported program (.pt2) with {len(configs)} lists of weights; save its weights: "
            "torch.save(torch.export.load(path).state_dict, 'weights.pth')."
        )
    roomy = replace(archive.limits, tensors=20 * archive.limits.tensors)  # a dozen brackets each
    config = parse_json(archive.content(configs[0]), archive.name, roomy)["config"]
    tensors: dict[str, Stored] = {}
    storages: dict[str, Storage] = {}
    for name, entry in config.items():
        meta, path = entry["tensor_meta"], folder + entry["path_name"]
        dtype = _EXPORTED.get(meta["dtype"])
        if dtype is None or entry["use_pickle"]:
            tensors[name] = Stored(Storage(torch.uint8, 0), 0, (0,), (1,), None)
            continue
        start, size = archive.span(path)
        shape, stride = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
        storage = Storage(dtype, size // dtype.itemsize, entry["path_name"], archive.file, start)
        storage = storages.setdefault(path, storage)
        tensors[name] = stored(storage, meta["storage_offset"]["as_int"], shape, stride, dtype)
    return Described("exported", tensors, {}, ["Exported program: only its weights were read, its graph was not."])


def _package(archive: Archive, root: str) -> SpError:
    inside = [path for path in archive.members if path.endswith(".pkl")]
    seen = ""
    if inside:
        machine = zip_machine(archive, f"{root}/.data", suffix=".storage")
        machine.run(io.BytesIO(archive.content(inside[0])))
        classes = ", ".join(list(machine.called)[:3])
        seen = f" Seen in {clean(inside[0])} without opening it: {classes}; {contents(_of(machine.tensors))}."
    package, _, resource = inside[0].partition("/")[2].rpartition("/") if inside else ("PACKAGE", "", "MODEL.pkl")
    return SpError(
        f"{archive.name} is a torch.package archive, which holds Python programs, and opening it would run them; "
        "save tensors only, if you trust the file, for the first line runs it:\n"
        f"    model = torch.package.PackageImporter('{archive.name}').load_pickle('{clean(package)}', "
        f"'{clean(resource)}')\n"
        "    state = model.state_dict()\n"
        f"    torch.save(state, 'weights.pth')\nThen open weights.pth here.{seen}"
    )


def _of(tensors: list[Stored]) -> Described:
    return Described("package", None, tensors=tuple(tensors))
