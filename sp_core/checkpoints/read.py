"""Bytes to named tensors, never to code.

A file is first *described*: names, shapes, types and places of its tensors, told by code of this project that makes
nothing, imports nothing and calls nothing of what the file names (:mod:`sp_core.checkpoints.inert`). That is less than
``torch.load(weights_only=True)`` does, and the tests compare both. After the limits are checked, the numbers of the
weights alone, not of the optimiser beside them, are read straight into float32 tensors in memory of their own: a file
that is overwritten later (by the training that still runs) changes nothing here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sp_core.checkpoints import shards
from sp_core.checkpoints.containers import damaged, describe
from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.names import clean, find_state, others, record, tidy
from sp_core.checkpoints.pickled import Described
from sp_core.checkpoints.refusals import refusal
from sp_core.checkpoints.stored import Stored, check, is_finite, read_tensor
from sp_core.errors import SpError

_LONGEST_NAME = 2000


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors from a file, before anyone knows which network they belong to.

    Attributes:
        tensors: name to tensor on the CPU; floating types are float32, names as in the file less ``module.`` parts;
            tied weights are one tensor under two names.
        metadata: small facts beside the weights (epoch, accuracy, hyper-parameters), as the file words them.
        container: ``"zip"``, ``"legacy"``, ``"safetensors"``, ``"sharded"``, ``"torchscript"``, ``"exported"`` or
            ``"onnx"``.
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


def read(path: str | Path, limits: Limits | None = None) -> Checkpoint:
    """Read a checkpoint file, or the index of one in several files. ``limits`` are those of the environment.

    Raises:
        SpError: the file is missing, not a checkpoint, damaged, asks for code, or is larger than the limits.
    """
    path = Path(path)
    with ExitStack() as opened:
        try:
            if path.is_dir():
                raise SpError(f"{path} is a directory; give the checkpoint file inside it.")
            if path.exists() and not path.is_file():
                raise SpError(f"{path} is not a regular file; give a checkpoint file.")
            file = opened.enter_context(path.open("rb"))
        except (OSError, ValueError) as error:
            raise SpError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from error

        def open_part(name: str) -> BinaryIO | None:
            part = path.parent / name
            return opened.enter_context(part.open("rb")) if part.is_file() else None

        return _read(file, clean(path.name), limits or Limits.from_environment(), open_part)


def read_bytes(
    data: bytes,
    filename: str = "upload.pth",
    siblings: Mapping[str, bytes] | None = None,
    limits: Limits | None = None,
) -> Checkpoint:
    """Read the bytes of a checkpoint, for example an upload; ``filename`` is only what messages call it.

    ``siblings`` are the files beside it by name, for an index and its parts.
    """
    name = clean(Path(filename).name) or "upload"
    beside = {Path(key).name: content for key, content in (siblings or {}).items()}

    def open_part(part: str) -> BinaryIO | None:
        return io.BytesIO(beside[part]) if part in beside else None

    return _read(io.BytesIO(data), name, limits or Limits.from_environment(), open_part)


def _read(file: BinaryIO, name: str, limits: Limits, open_part: Any) -> Checkpoint:
    try:
        found = describe(file, name, limits)
        if found.kind == "index":
            found = shards.open_parts(found, name, open_part, describe, limits)
        if found.foreign:
            raise refusal(found, name)
        return _checkpoint(found, name, limits)
    except SpError:
        raise
    except MemoryError as error:
        raise SpError(f"{name} needs more memory than there is.") from error
    except OSError as error:
        raise SpError(f"{name} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # junk: ValueError, struct.error, KeyError, IndexError, RecursionError …
        raise damaged(name, error) from error


def _checkpoint(found: Described, name: str, limits: Limits) -> Checkpoint:
    named = find_state(found.content)
    if named is None:
        raise SpError(
            f"{name} holds {_worded(found.content)}, not the named weights of a network; "
            "save them with torch.save(model.state_dict(), 'weights.pth')."
        )
    state, path = named
    limits.check_count(len(state), name)
    if max(map(len, state), default=0) > _LONGEST_NAME:
        raise SpError(f"{name} holds a name of {max(map(len, state))} characters; no program names a weight like that.")
    limits.check_weights(sum(check(tensor, clean(key), name) for key, tensor in state.items() if tensor.is_dense), name)
    state, notes = tidy(state)
    tensors, more = _read_tensors(state)
    if not tensors:
        raise SpError(f"{name} holds no dense numbers; save the weights unquantised, with model.state_dict().")
    notes = [*found.notes, *([said] if (said := shards.lone_part_note(name)) else []), *notes]
    if path and any("ema" in key.lower().split("_") for key in path):
        notes.append(f"These are the averaged weights ('{clean(path[0])}') of the checkpoint.")
    elif beside := others(found.content, path):
        notes.append(f"The weights under '{clean(path[0])}' were read; {', '.join(beside[:3])} beside them were not.")
    if found.mentioned:
        notes.append(f"The file mentions {', '.join(found.mentioned[:3])}; nothing of it was looked up.")
    facts = found.facts | (record(found.content) if path else {})
    return Checkpoint(tensors, facts, found.kind, tuple(notes + more), name)


def _worded(content: Any) -> str:
    if isinstance(content, Stored):
        return f"one tensor of shape {'×'.join(map(str, content.shape)) or 'a number'}"
    if isinstance(content, Mapping):
        keys = ", ".join(clean(str(key)[:30]) for key in list(content)[:4])
        return f"a dictionary without tensors ({keys or 'empty'})"
    return f"a {type(content).__name__}"


def _read_tensors(state: Mapping[str, Stored]) -> tuple[dict[str, Tensor], list[str]]:
    """Private float32 copies (integers stay as they are), and sentences on what was changed or left out."""
    copies: dict[str, Tensor] = {}
    known: dict[Any, Tensor] = {}
    converted: dict[str, int] = {}
    left_out, broken, quantised = [], [], 0
    for name, tensor in state.items():
        if not tensor.is_dense or tensor.dtype is None:
            left_out.append(name)
            continue
        if tensor.quantised is not None:
            quantised += 1
        elif tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            converted[kind] = converted.get(kind, 0) + 1
        if tensor.identity not in known:
            known[tensor.identity] = read_tensor(tensor)
        copies[name] = known[tensor.identity]
        if not is_finite(copies[name]):
            broken.append(name)
    notes = [f"{count} tensors were {kind} and became float32." for kind, count in sorted(converted.items())]
    if quantised:
        notes.append(f"{quantised} quantised tensors were turned back into float32.")
    if left_out:
        notes.append(f"{len(left_out)} sparse, complex or empty tensors were left out ({', '.join(left_out[:3])}).")
    if broken:
        notes.append(f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:3])}): expect blank pictures.")
    return copies, notes
