"""A ``.safetensors`` file: eight bytes of length, a JSON header of names, types, shapes and places, then the numbers.

The header is read here and not by the ``safetensors`` library, whose mapped file would count as memory and could be
shortened while it is looked at. Nothing may overlap, nothing may be left over: as the format asks.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

import torch

from sp_core.checkpoints.limits import Limits, raised_by
from sp_core.checkpoints.pickled import Described
from sp_core.checkpoints.stored import Storage, Stored, contiguous, stored
from sp_core.errors import SpError

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def open_safetensors(file: BinaryIO, name: str, size: int, limits: Limits) -> Described:
    """The tensors of a file that begins like ``.safetensors``."""
    file.seek(0)
    length = struct.unpack("<Q", file.read(8))[0]
    if length > limits.header_mb * 2**20:
        raise SpError(
            f"{name} lists more than {limits.header_mb} MB of names{raised_by('header_mb')}; that is no network."
        )
    if 8 + length > size:
        raise SpError(f"{name} is cut off: its header alone needs {8 + length} of {size} bytes; copy it again.")
    header = parse_json(file.read(length), name, limits)
    facts = header.pop("__metadata__", {})
    end, tensors = 0, {}
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        if begin != end or type(stop) is not int:
            raise ValueError(f"the numbers of '{key[:60]}' do not follow those before")
        tensors[key] = _stored(file, key, entry, 8 + length + begin, stop - begin)
        end = stop
    if 8 + length + end != size:
        raise SpError(f"{name} should have {8 + length + end} bytes but has {size}; it is cut off, copy it again.")
    small = {key: value for key, value in facts.items() if isinstance(value, str) and len(value) <= 200}
    return Described("safetensors", {key: tensors[key] for key in header}, small)


def _stored(file: BinaryIO, key: str, entry: Any, start: int, size: int) -> Stored:
    dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None:  # a type of numbers that torch does not have: known to be there, left out
        return Stored(Storage(torch.uint8, size, key, file, start), 0, (size,), (1,), None)
    storage = Storage(dtype, size // dtype.itemsize, key, file, start)
    made = stored(storage, 0, shape, contiguous(tuple(shape)), dtype)
    if size != made.numel() * dtype.itemsize:
        raise ValueError(f"'{key[:60]}' has {size} bytes where {made.numel() * dtype.itemsize} are needed")
    return made


def parse_json(data: bytes, name: str, limits: Limits) -> dict[str, Any]:
    """A JSON object; its brackets and commas are counted first, because each can cost far more memory than itself."""
    if data.count(b"{") > limits.tensors + 1000 or data.count(b",") > 40 * limits.tensors:
        limits.check_count(max(data.count(b"{"), data.count(b",") // 40), name)
    if data.count(b"[") > 2 * limits.tensors + 1000:
        raise ValueError("far more lists than tensors")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"'{key[:60]}' is named twice")
            found[key] = value
        return found

    parsed = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    if not isinstance(parsed, dict):
        raise TypeError("the header is no object")
    return parsed
