"""Bytes to named tensors, never to code.

Three containers are read: both forms of ``torch.save`` and ``.safetensors``. Pickles go through torch's safe reader
(``weights_only=True``) after their own list of globals has been checked, and there is no way round either. What comes
out are private copies in memory: a file that is overwritten later (by the training that still runs) changes nothing
here.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from sp_core.checkpoints.containers import HOW_TO_SAVE, MAX_FILE_BYTES, Container, damaged, inspect
from sp_core.checkpoints.names import find_state, record, tidy
from sp_core.errors import SpError

MAX_TENSORS = 20_000
MAX_TENSOR_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors from a file, before anyone knows which network they belong to.

    Attributes:
        tensors: name to tensor on the CPU; floating types are float32, names as in the file less ``module.`` parts.
        metadata: small facts beside the weights (epoch, accuracy, hyper-parameters), as the file words them.
        container: ``"zip"``, ``"legacy"`` or ``"safetensors"``.
        notes: sentences on what was converted or left out.
        filename: what messages call it.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    container: str = "memory"
    notes: tuple[str, ...] = ()
    filename: str = "the checkpoint"

    def summary(self) -> str:
        """How many tensors, the first names and the largest shapes: what one looks at when nothing fits.

        >>> Checkpoint({"fc.weight": torch.zeros(2, 3)}).summary()
        '1 tensors (fc.weight), the largest fc.weight 2×3'
        """
        first = ", ".join(list(self.tensors)[:3])
        large = sorted(self.tensors.items(), key=lambda item: -item[1].numel())[:2]
        shapes = ", ".join(f"{name} {'×'.join(map(str, tensor.shape)) or 'scalar'}" for name, tensor in large)
        return f"{len(self.tensors)} tensors ({first}{', …' * (len(self.tensors) > 3)}), the largest {shapes}"


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        SpError: the file is missing, not a checkpoint, damaged, asks for code, or is larger than the limits.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise SpError(f"{path} is a directory; give the checkpoint file inside it.")
        if path.exists() and not path.is_file():
            raise SpError(f"{path} is not a regular file; give a checkpoint file.")
        with path.open("rb") as file:
            container = inspect(file, path.name)
    except (OSError, ValueError) as error:
        raise SpError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from error
    return _read(path, path.name, container)


def read_bytes(data: bytes, filename: str = "upload.pth") -> Checkpoint:
    """Read the bytes of a checkpoint, for example an upload; ``filename`` is only what messages call it.

    The bytes pass through a private temporary file, because torch maps archives from disk; it is removed at once.
    """
    if len(data) > MAX_FILE_BYTES:
        raise SpError(f"{filename} has {len(data) / 2**30:.1f} GB; at most {MAX_FILE_BYTES / 2**30:g} GB are read.")
    name = Path(filename).name or "upload"
    container = inspect(io.BytesIO(data), name)
    with _private_file(data) as path:
        return _read(path, name, container)


@contextmanager
def _private_file(data: bytes) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix="sp-upload-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _read(path: Path, name: str, container: Container) -> Checkpoint:
    if container.refused:
        raise _refusal(name, container.refused)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old protocols and TypedStorage: nothing a person could act on
            content, facts = _content(path, container.kind)
            return _checkpoint(content, facts, name, container.kind)
    except SpError:
        raise
    except MemoryError as error:
        raise SpError(f"{name} needs more memory than there is.") from error
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, AssertionError …
        raise damaged(name, error) from error


def _content(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    if kind == "safetensors":
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise SpError(f"{path.name} holds {len(names)} tensors; at most {MAX_TENSORS} are read.")
            facts = {key: value for key, value in (file.metadata() or {}).items() if len(value) <= 200}
            return {name: file.get_tensor(name) for name in names}, facts
    # Mapped, not read: only the weights are then copied out (not the optimiser's state), and a record that claims
    # to be longer than it is cannot reach past the end of the file.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
    return content, {}


def _checkpoint(content: Any, facts: dict[str, Any], name: str, kind: str) -> Checkpoint:
    found = find_state(content)
    if found is None:
        raise SpError(
            f"{name} holds {_worded(content)}, not the named weights of a network; "
            "save them with torch.save(model.state_dict(), 'weights.pth')."
        )
    state, path = found
    if len(state) > MAX_TENSORS:
        raise SpError(f"{name} holds {len(state)} tensors; at most {MAX_TENSORS} are read.")
    _check_sizes(state, name)
    state, notes = tidy(state)
    tensors, more = _copies(state)
    if not tensors:
        raise SpError(f"{name} holds no dense numbers; save the weights unquantised, with model.state_dict().")
    if path and isinstance(content, Mapping) and "ema" in path[0]:
        notes.append(f"These are the averaged weights ('{path[0]}') of the checkpoint.")
    facts = facts | (record(content) if path else {})
    return Checkpoint(tensors, facts, kind, tuple(notes + more), name)


def _worded(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"one tensor of shape {'×'.join(map(str, content.shape)) or 'a number'}"
    if isinstance(content, Mapping):
        keys = ", ".join(str(key)[:30] for key in list(content)[:4])
        return f"a dictionary without tensors ({keys or 'empty'})"
    return f"a {type(content).__name__}"


def _check_sizes(state: Mapping[str, Tensor], name: str) -> None:
    """Before any copy: a view may claim far more numbers than its storage holds (stride 0)."""
    total = 0
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue
        claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if claimed > held:
            raise SpError(f"{name}: '{key}' claims {claimed} bytes but the file holds {held} for it; it is damaged.")
        total += max(claimed, 4 * tensor.numel())  # half precision becomes float32
    if total > MAX_TENSOR_BYTES:
        limit = MAX_TENSOR_BYTES / 2**30
        raise SpError(f"{name} holds {total / 2**30:.1f} GB of weights in float32; at most {limit:g} GB are read.")


def _copies(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Private float32 copies (integers stay as they are), and sentences on what was changed or left out."""
    copies: dict[str, Tensor] = {}
    converted: dict[str, int] = {}
    left_out, quantised, broken = [], 0, []
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            left_out.append(name)
            continue
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor, quantised = tensor.dequantize(), quantised + 1
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            converted[kind] = converted.get(kind, 0) + 1
        wanted = torch.float32 if tensor.is_floating_point() else tensor.dtype
        copies[name] = torch.empty(tensor.shape, dtype=wanted).copy_(tensor)
        if not bool(torch.isfinite(copies[name]).all()):
            broken.append(name)
    notes = [f"{count} tensors were {kind} and became float32." for kind, count in sorted(converted.items())]
    if quantised:
        notes.append(f"{quantised} quantised tensors were turned back into float32.")
    if left_out:
        notes.append(f"{len(left_out)} sparse, complex or empty tensors were left out ({', '.join(left_out[:3])}).")
    if broken:
        notes.append(f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:3])}): expect blank pictures.")
    return copies, notes


def _refusal(name: str, refused: tuple[str, ...]) -> SpError:
    shown = ", ".join(refused[:5]) + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
    what = "a whole Python model" if any("torch.nn.modules" in item for item in refused) else "Python objects"
    return SpError(f"{name} holds {what} ({shown}), and opening those could run code; {HOW_TO_SAVE}")
