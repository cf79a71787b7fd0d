"""What a training run writes: weights, model card, state. Each is written beside its place and then moved into it.

``os.replace`` is atomic on one file system, so a run that is killed in the middle leaves the old file whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from sp_core.errors import SpError
from sp_core.training.recipes import Recipe


def _replace(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all or nothing, also if the machine stops."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105  (named so in the documentation of atomic writes)
    except OSError as error:
        raise SpError(f"cannot write '{path}' ({error.strerror}); choose another folder with --out") from error


def write_weights(folder: Path, recipe: Recipe, net: nn.Module) -> str:
    """Write ``NAME.safetensors`` (float32, contiguous, on the CPU); return its sha256 in hexadecimal."""
    tensors = {
        name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in net.state_dict().items()
    }
    data = safetensors_bytes(tensors, {"architecture": recipe.architecture, "recipe": recipe.name})
    _replace(folder / f"{recipe.name}.safetensors", data)
    return hashlib.sha256(data).hexdigest()


def write_card(folder: Path, recipe: Recipe, card: dict[str, Any]) -> None:
    """Write ``NAME.json``."""
    write_json(folder / f"{recipe.name}.json", card)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as readable JSON."""
    _replace(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _state_path(folder: Path, recipe: Recipe) -> Path:
    return folder / f"{recipe.name}.state.pt"


def write_state(folder: Path, recipe: Recipe, state: dict[str, Any], *, complete: bool) -> None:
    """Write what a resumed run needs; when the run is ``complete`` there is nothing to resume, and the file goes."""
    path = _state_path(folder, recipe)
    if complete:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _replace(path, buffer.getvalue())


def read_state(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The state to go on from, or ``None`` when there is none; a state of another recipe is an error.

    Read with ``weights_only``: a state file from elsewhere cannot run code.
    """
    path = _state_path(folder, recipe)
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each have their own; all mean the same to the person
        raise SpError(f"'{path}' cannot be read as a training state; delete it, or train without --resume") from error
    wanted, found = asdict(recipe), state.get("recipe", {})
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        name = differing[0]
        raise SpError(
            f"'{path}' was made with {name} = {found.get(name)!r}, not {wanted[name]!r}; "
            "give the same options, or train without --resume to start again"
        )
    return state
