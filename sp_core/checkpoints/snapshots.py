"""The checkpoints of a training run in a folder: which files, in which order, and loading one after another quickly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sp_core.checkpoints.read import Checkpoint, read
from sp_core.checkpoints.runs import Run, Snapshot, find_runs
from sp_core.checkpoints.sources import check_device, from_checkpoint
from sp_core.errors import SpError
from sp_core.network import Network

ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".th", ".tar", ".pkl", ".t7", ".model")
MOST_FILES = 5000
_EPOCH_KEYS = ("epoch", "epochs", "current_epoch", "last_epoch")


@dataclass(frozen=True)
class TrainingRun:
    """The checkpoints of one training run.

    Attributes:
        folder: where they are.
        run: their names in order; see :class:`~sp_core.checkpoints.runs.Run`.
        others: names of further runs in the folder.
    """

    folder: Path
    run: Run
    others: tuple[str, ...] = ()

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The files, earliest first."""
        return self.run.snapshots

    def load(self, snapshot: Snapshot, like: Network | None = None, device: str | None = None) -> Network:
        """The network of one snapshot; ``like`` is another of the same run, whose architecture is tried first."""
        return load_like(self.folder / snapshot.file, like, device)


def training_run(folder: str | Path) -> TrainingRun:
    """The training run in ``folder`` or one level below it; of several the longest.

    Files belong to a run by their names. Where no names are numbered, the epochs that the files hold inside tell, and
    the epoch of a ``best`` or ``last`` is read from it as well.

    Raises:
        SpError: there is no such folder, or no two checkpoints of one run in it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise SpError(f"{place} is not a folder; give the folder that a training program wrote its checkpoints to.")
    sizes = checkpoint_files(place)
    runs = find_runs(sizes, sizes)
    run = runs[0] if runs else _by_what_they_say(place, sizes)
    unplaced = [row.file for row in run.snapshots if row.position is None]
    known = {file: epoch for file in unplaced if (epoch := _epoch_inside(place / file)) is not None}
    return TrainingRun(place, run.placed(known), tuple(other.name for other in runs[1:]))


def checkpoint_files(folder: Path, endings: tuple[str, ...] = ENDINGS) -> dict[str, int]:
    """The files in ``folder`` and one level below it that may be checkpoints, by their endings; name to bytes."""
    found: dict[str, int] = {}
    for entry in _sorted(folder):
        inside = _sorted(Path(entry.path)) if entry.is_dir() and not entry.name.startswith(".") else [entry]
        for file in inside:
            if file.is_file() and Path(file.name).suffix.lower() in endings:
                found[Path(file.path).relative_to(folder).as_posix()] = file.stat().st_size
            if len(found) >= MOST_FILES:
                return found
    return found


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # a folder that may not be read holds nothing for us
        return []


def load_like(path: Path, like: Network | None = None, device: str | torch.device | None = None) -> Network:
    """The network in the file ``path``, whose architecture is probably that of ``like``, which is tried first."""
    return made_like(read(path), f"file {path.name}", like, device, path)


def made_like(
    checkpoint: Checkpoint,
    source: str,
    like: Network | None = None,
    device: str | torch.device | None = None,
    path: Path | None = None,
) -> Network:
    """The same of a checkpoint that was read."""
    return from_checkpoint(checkpoint, source, check_device(device), path, _hint(like))


def _hint(like: Network | None) -> str | None:
    return like.architecture if like is not None and like.confidence == "exact" else None


def epoch_of(record: Mapping[str, Any]) -> int | None:
    """The epoch among what training left beside the weights, or None.

    >>> epoch_of({"acc": 91.2, "epoch": 7}), epoch_of({"lr": 0.1})
    (7, None)
    """
    for key in _EPOCH_KEYS:
        value = record.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _epoch_inside(path: Path) -> int | None:
    try:
        return epoch_of(read(path).metadata)
    except SpError:
        return None


def _by_what_they_say(folder: Path, files: Mapping[str, int]) -> Run:
    """The run of files whose names say nothing, by the epochs they hold and the shapes of their weights."""
    groups: dict[Any, list[tuple[int, str]]] = {}
    for file in files:
        try:
            checkpoint = read(folder / file)
        except SpError:
            continue
        epoch = epoch_of(checkpoint.metadata)
        if epoch is not None:
            groups.setdefault(_shapes(checkpoint), []).append((epoch, file))
    most = max(groups.values(), key=len, default=[])
    if len(most) < 2:
        some = f"{len(files)} checkpoint files ({', '.join(list(files)[:3])})" if files else "no checkpoint file"
        raise SpError(
            f"{folder} holds {some}, but no two of one training run: their names are to be numbered "
            "(epoch_1.pt, epoch_2.pt …), or they hold their epoch beside the weights."
        )
    epochs = [epoch for epoch, _ in most]
    rows = [
        Snapshot(file, str(epoch) if epochs.count(epoch) == 1 else f"{epoch} · {file}", (epoch, -1))
        for epoch, file in sorted(most)
    ]
    return Run("epochs inside the files", "epoch", tuple(rows))


def _shapes(checkpoint: Checkpoint) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(checkpoint.tensors.items()))
