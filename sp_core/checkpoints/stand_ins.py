"""The calls in a pickle that stand for plain values and tensors, answered with descriptions; nothing is ever called.

Every answer is checked where it is made; what is wrong raises ValueError or TypeError, which means a damaged file.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import torch

from sp_core.checkpoints.inert import Global, Machine, Made, StandIn
from sp_core.checkpoints.stored import MAX_DIMENSIONS, Quantised, Storage, Stored, contiguous, stored

DTYPES: dict[str, torch.dtype] = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    "QInt8": torch.qint8, "QUInt8": torch.quint8, "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2, "QUInt2x4": torch.quint2x4, "Untyped": torch.uint8,
}  # fmt: skip
_STORAGE_NAME = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
# Names that are words for plain values; to mention one, or to use it, makes no object of a foreign class.
_PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict)|builtins\.(set|frozenset|list|tuple|dict|complex|slice|range"
    r"|int|float|str|bool)|_codecs\.encode|argparse\.Namespace|pathlib\.(Pure)?(Posix|Windows)?Path"
    r"|torch\.(Size|Tensor|device)|torch\.nn\.parameter\.(Parameter|Buffer)|torch\.serialization\._get_layout"
    r"|torch\.(cuda\.|storage\.)?\w+Storage|torch\.per_(tensor|channel)_(affine|symmetric)\w*"
    r"|torch\.(bool|half|float|double|long|short|int|bits\d\w*|b?float\d\w*|q?u?int\d\w*|complex\d+|cfloat|cdouble)"
    r"|torch\.(strided|sparse_\w+|contiguous_format|channels_last|preserve_format)"
    r"|numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|_?core\.numeric\._frombuffer|dtype|ndarray)"
    r"|numpy\.dtypes\.\w+DType"
)
_NUMPY_NUMBERS = {
    "f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b",
    "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B", "b1": "<?",
}  # fmt: skip


def is_plain(name: str) -> bool:
    """Whether a global of a pickle is a word for plain values and tensors.

    >>> is_plain("torch.FloatStorage"), is_plain("builtins.eval"), is_plain("torch.nn.modules.conv.Conv2d")
    (True, False, False)
    """
    return name in STAND_INS or _PLAIN.fullmatch(name) is not None


def storage_dtype(kind: Any) -> torch.dtype:
    """The type of the numbers of ``Global("torch.FloatStorage")``."""
    found = _STORAGE_NAME.fullmatch(kind.name) if isinstance(kind, Global) else None
    if found is None or found.group(1) not in _STORAGES:
        raise ValueError(f"an unknown kind of storage, {kind.name[:60] if isinstance(kind, Global) else 'unnamed'}")
    return _STORAGES[found.group(1)]


def _dtype(name: Any) -> torch.dtype:
    short = name.name.removeprefix("torch.") if isinstance(name, Global) else ""
    if short not in DTYPES:
        raise ValueError(f"an unknown type of numbers, {short[:60]}")
    return DTYPES[short]


def _seen(machine: Machine, tensor: Stored) -> Stored:
    machine.tensors.append(tensor)
    machine.spend(tensor.ndim)
    return tensor


def _storage(value: Any) -> Storage:
    if not isinstance(value, Storage):
        raise TypeError("a tensor lies in no storage")
    return value


def _tensor(machine: Machine, arguments: tuple[Any, ...]) -> Stored:
    storage = _storage(arguments[0])
    offset, shape, stride = arguments[1:4]
    return _seen(machine, stored(storage, offset, shape, stride, storage.dtype))


def _typed_tensor(machine: Machine, arguments: tuple[Any, ...]) -> Stored:
    """``_rebuild_tensor_v3``: bytes whose type stands beside them."""
    storage, dtype = _storage(arguments[0]), _dtype(arguments[6])
    typed = machine.storages.setdefault(
        ("typed", id(storage), dtype),
        Storage(dtype, storage.size // dtype.itemsize, storage.name, storage.file, storage.start, storage.shift),
    )
    offset, shape, stride = arguments[1:4]
    return _seen(machine, stored(typed, offset, shape, stride, dtype))


def _quantised_tensor(machine: Machine, arguments: tuple[Any, ...]) -> Stored:
    storage = _storage(arguments[0])
    offset, shape, stride, how = arguments[1:5]
    scheme = how[0].name.removeprefix("torch.") if isinstance(how[0], Global) else ""
    if scheme.startswith("per_tensor"):
        scale, zero, axis = how[1], how[2], 0
        if not all(isinstance(value, (int, float)) for value in (scale, zero)):
            raise TypeError("a quantised tensor without a scale")
    else:
        scale, zero, axis = how[1], how[2], how[3]
        if type(axis) is not int or not isinstance(shape, (tuple, list)) or not 0 <= axis < len(shape):
            raise ValueError("a quantised tensor without an axis")
        for values in (scale, zero):
            if not isinstance(values, Stored) or not values.is_dense or values.shape != (shape[axis],):
                raise ValueError("a quantised tensor with scales of another shape")
    return _seen(machine, stored(storage, offset, shape, stride, storage.dtype, Quantised(scale, zero, axis)))


def _left_out(shape_at: int) -> StandIn:
    """A tensor without dense numbers in the file: sparse, or on no device."""

    def answer(machine: Machine, arguments: tuple[Any, ...]) -> Stored:
        shape = arguments[shape_at] if 0 <= shape_at < len(arguments) else (0,)
        shape = tuple(shape) if isinstance(shape, (tuple, list)) and len(shape) <= MAX_DIMENSIONS else (0,)
        empty = stored(Storage(torch.uint8, 0), 0, shape, contiguous(shape), torch.uint8)
        return _seen(machine, Stored(empty.storage, 0, empty.shape, empty.stride, None))

    return answer


def _first(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    return arguments[0]


def _from_type(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_from_type_v2(function, class, arguments, state)``: a tensor of a class of its own."""
    maker, kind, inner = arguments[:3]
    if not isinstance(kind, Global) or not machine.plain(kind.name):
        machine.called.setdefault(kind.name if isinstance(kind, Global) else "an unnamed object")
    return machine.call(maker, inner)


def _dictionary(machine: Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = arguments[0] if arguments else []
    made: dict[Any, Any] = {}
    if isinstance(pairs, dict):
        machine.spend(len(pairs))
        made.update(pairs)
    elif isinstance(pairs, (list, tuple)):
        machine.spend(len(pairs))
        for key, value in pairs:
            if isinstance(key, (str, int, float, bytes)):
                made[key] = value
    return made


def _default_dictionary(machine: Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return _dictionary(machine, arguments[1:])


def _list(machine: Machine, arguments: tuple[Any, ...]) -> list[Any]:
    values = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else []
    machine.spend(len(values))
    return list(values)


def _size(machine: Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_list(machine, arguments))


def _encode(machine: Machine, arguments: tuple[Any, ...]) -> bytes:
    """``_codecs.encode(text, "latin1")``: how protocol 2 writes bytes."""
    text, coding = arguments
    if not isinstance(text, str) or coding not in {"latin1", "latin-1"}:
        raise ValueError("bytes in an unknown coding")
    machine.spend(len(text) // 64)
    return text.encode("latin1")


def _path(machine: Machine, arguments: tuple[Any, ...]) -> str:
    return "/".join(part for part in arguments[:20] if isinstance(part, str))[:1000]


def _record(machine: Machine, arguments: tuple[Any, ...]) -> Made:
    return Made(Global("argparse.Namespace"))


def _numpy_type(machine: Machine, arguments: tuple[Any, ...]) -> str:
    return str(arguments[0])[:20] if arguments and isinstance(arguments[0], str) else ""


def _numpy_number(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """A NumPy scalar: what people leave beside the weights as ``best_acc``."""
    kind, data = (*arguments, b"")[:2]
    kind = (kind if isinstance(kind, str) else "").lstrip("<>=|")
    form = _NUMPY_NUMBERS.get(kind)
    if form is None or not isinstance(data, bytes) or len(data) != struct.calcsize(form):
        return None
    return struct.unpack(form, data)[0]


STAND_INS: dict[str, StandIn] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_qtensor": _quantised_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_meta_tensor_no_storage": _left_out(1),
    "torch._utils._rebuild_sparse_tensor": _left_out(-1),
    "torch._utils._rebuild_sparse_csr_tensor": _left_out(-1),
    "torch._utils._rebuild_nested_tensor": _left_out(-1),
    "torch._utils._rebuild_device_tensor_from_numpy": _left_out(-1),
    "torch._utils._rebuild_xla_tensor": _left_out(-1),
    "torch._utils._rebuild_wrapper_subclass": _left_out(2),
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.Size": _size,
    "torch.device": lambda machine, arguments: ":".join(str(part)[:20] for part in arguments[:2]),
    "torch.serialization._get_layout": _first,
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "argparse.Namespace": _record,
    "builtins.dict": _dictionary,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.list": _list,
    "builtins.tuple": _size,
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
    **{f"pathlib.{kind}": _path for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")},
}

# What torch.jit writes beside them: containers with their types.
SCRIPT_STAND_INS: dict[str, StandIn] = STAND_INS | {
    f"torch.jit._pickle.{name}": _first
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
}
