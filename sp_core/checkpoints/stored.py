"""A tensor that lies in a file: described first, checked, and only then read, straight into its place in memory.

Nothing is mapped. A mapped file that a training program shortens kills the process that looks at it, and pages of it
count as memory; reading a record into the tensor it becomes needs the tensor and one small block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sp_core.errors import SpError

BLOCK = 2**20  # numbers converted at a time
MAX_DIMENSIONS = 32
# Numbers as they lie in the file, for types that torch computes with only after dequantising.
_RAW = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
_DIRECT = {torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_PACKED = {torch.quint4x2, torch.quint2x4}  # several numbers a byte


@dataclass(eq=False, slots=True)
class Storage:
    """A run of numbers in a file.

    Attributes:
        count: how many numbers.
        name: what the file calls it.
        start: where the run that it is part of begins in the file; -1 until that is known.
        shift: how many bytes into that run it begins.
    """

    dtype: torch.dtype
    count: int
    name: str = ""
    file: BinaryIO | None = None
    start: int = -1
    shift: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, eq=False, slots=True)
class Quantised:
    """How whole numbers stand for real ones: ``(number - zero) * scale``, one pair, or one per index of ``axis``."""

    scale: float | Stored
    zero: float | Stored = 0
    axis: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A strided view of a storage: all there is to know about a tensor before its numbers are read.

    ``dtype`` is None for what has no dense numbers (sparse, on no device); ``offset`` and ``stride`` count numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype | None
    quantised: Quantised | None = None

    @property
    def ndim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two names of one tensor: tied weights."""
        return id(self.storage), self.offset, self.shape, self.stride, self.dtype, id(self.quantised)

    @property
    def is_dense(self) -> bool:
        """Whether it holds real numbers in strides; sparse, complex and packed ones are left out."""
        return self.dtype is not None and not self.dtype.is_complex and self.dtype not in _PACKED

    def __float__(self) -> float:
        return float(read_tensor(self)) if self.is_dense else math.nan


def stored(storage: Storage, offset: Any, shape: Any, stride: Any, dtype: torch.dtype, quantised: Any = None) -> Stored:
    """A description whose numbers are sane: whole and not negative. Raises ValueError for others."""
    if not isinstance(shape, (tuple, list)) or not isinstance(stride, (tuple, list)):
        raise TypeError("a tensor without sizes and strides")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} sizes and {len(stride)} strides")
    if not all(type(number) is int and 0 <= number < 2**48 for number in (offset, *shape, *stride)):
        raise ValueError("a tensor whose sizes and strides are no sizes and strides")
    return Stored(storage, offset, tuple(shape), tuple(stride), dtype, quantised)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor whose last index runs fastest.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def check(tensor: Stored, key: str, name: str) -> int:
    """Check that the file holds what ``tensor`` claims, before any copy; returns the bytes it takes as float32."""
    held, claimed = tensor.storage.size, tensor.numel() * tensor.storage.dtype.itemsize
    if claimed > held:
        raise SpError(f"{name}: '{key}' claims {claimed} bytes but the file holds {held} for it; it is damaged.")
    if claimed and tensor.offset + _extent(tensor) > tensor.storage.count:
        raise SpError(f"{name}: '{key}' reaches beyond the {held} bytes that the file holds for it; it is damaged.")
    if tensor.quantised is not None:
        for part in (tensor.quantised.scale, tensor.quantised.zero):
            if isinstance(part, Stored):
                check(part, key, name)
    return max(claimed, 4 * tensor.numel())


def _extent(tensor: Stored) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True))


def read_tensor(tensor: Stored) -> Tensor:
    """The numbers, in memory of their own and contiguous: float32 for real and quantised numbers, else as they are.

    ``tensor`` must have passed :func:`check` and be dense.
    """
    kind = tensor.dtype
    assert kind is not None
    real = kind.is_floating_point or tensor.quantised is not None
    out = torch.empty(tensor.shape, dtype=torch.float32 if real else _RAW.get(kind, kind))
    if out.numel() == 0:
        return out
    # The order in which the numbers lie in the file: largest stride first (channels last, a transposed matrix).
    order = sorted((d for d in range(out.ndim) if out.shape[d] > 1), key=lambda d: -tensor.stride[d])
    unit = [d for d in range(out.ndim) if out.shape[d] == 1]
    laid = out.permute([*unit, *order])[(0,) * len(unit)]
    strides = tuple(tensor.stride[d] for d in order)
    if strides != contiguous(tuple(laid.shape)):  # gaps or repetitions: the whole run, then the view of it
        run = _numbers(tensor, tensor.offset, _extent(tensor))
        out.copy_(run.as_strided(tensor.shape, tensor.stride))
    elif order == sorted(order) and out.dtype == tensor.storage.dtype and out.dtype in _DIRECT:
        _read_into(tensor.storage, tensor.offset, out.view(-1).numpy().data.cast("B"))
    else:
        if order == sorted(order):
            laid = out.view(-1)
        row = math.prod(laid.shape[1:])
        rows = max(1, BLOCK // row)
        for first in range(0, laid.shape[0], rows):
            part = laid[first : first + rows]
            part.copy_(_numbers(tensor, tensor.offset + first * row, part.numel()).view(part.shape))
    return _dequantised(out, tensor.quantised)


def _dequantised(out: Tensor, quantised: Quantised | None) -> Tensor:
    if quantised is None:
        return out

    def along(value: float | Stored) -> Any:
        if not isinstance(value, Stored):
            return value
        numbers = read_tensor(value).float()
        return numbers.view([-1 if d == quantised.axis else 1 for d in range(out.ndim)]) if numbers.ndim else numbers

    return out.sub_(along(quantised.zero)).mul_(along(quantised.scale))


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite; looked at in blocks, because a mask is as large as the tensor."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    blocks = tensor.view(-1).split(BLOCK)
    return all(math.isfinite(end) for block in blocks for end in map(float, block.aminmax()))


def _numbers(tensor: Stored, first: int, count: int) -> Tensor:
    storage = tensor.storage
    block = bytearray(count * storage.dtype.itemsize)
    _read_into(storage, first, memoryview(block))
    raw = torch.frombuffer(block, dtype=torch.uint8)
    if storage.dtype == torch.bool:
        return raw != 0  # any byte may stand in a file; torch computes with 0 and 1 only
    return raw.view(_RAW.get(storage.dtype, storage.dtype))


def _read_into(storage: Storage, first: int, place: memoryview) -> None:
    if storage.file is None or storage.start < 0:
        raise SpError(f"The file does not hold the numbers '{storage.name[:60]}' that it speaks of; copy it again.")
    storage.file.seek(storage.start + storage.shift + first * storage.dtype.itemsize)
    done = 0
    while done < len(place):
        got = storage.file.readinto(place[done:])  # type: ignore[attr-defined]
        if not got:
            raise SpError("The file became shorter while it was read; wait until it is written, then open it again.")
        done += got
