"""Which files are the checkpoints of one training run, and in which order: read from their names.

Training programs number what they save: ``epoch=3-step=100.ckpt``, ``checkpoint_010.pth``, ``model_12.pt``,
``checkpoint-500/model.safetensors``; beside these lie ``best.pt``, ``last.ckpt``, ``model_best.pth.tar``. Files belong
together when their names are equal but for such counters (and for metrics: ``val_loss=0.21``). A number that is part
of a word (``resnet18``, ``12fca82f``) is no counter. Pure functions on names; files are read by ``snapshots``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

EPOCH = {"epoch", "epochs", "ep", "e"}
STEP = {"step", "steps", "iter", "iters", "iteration", "iterations", "it", "update", "updates"}
PLAIN = {"checkpoint", "checkpoints", "ckpt", "cp", "model", "weights", "net", "network", "snapshot", "save", "saved",
         "state", "dict", "params", "pytorch", "global"}  # fmt: skip
METRIC = {"loss", "acc", "accuracy", "val", "valid", "test", "train", "top", "err", "error", "miou", "map", "auc",
          "score", "psnr", "f", "dice", "ppl", "metric", "monitor"}  # fmt: skip
FIRST, LAST = ("init", "initial"), ("best", "checkpoint", "last", "latest", "final", "end")
_OTHER = {"optimizer", "optim", "opt", "scheduler", "scaler", "rng", "args", "tokenizer"}  # files without weights
ENDINGS = {"pth", "pt", "ckpt", "safetensors", "bin", "th", "tar", "pkl", "t7", "model", "gz"}
_TOKEN = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?|[^A-Za-z\d]+")
_SHARD = re.compile(r"\d{5}-of-\d{5}")
_LIKE = 0.01  # sizes of checkpoints of one network differ by less, …
_SLACK = 65536  # … or by this many bytes (a history of losses that grows)


@dataclass(frozen=True)
class Snapshot:
    """One file of a run.

    Attributes:
        file: its name as given, with ``/`` before it the folder, if any.
        label: what tells it from the others: ``"3"``, ``"best"``; within a run every label is different.
        position: (epoch, step), -1 for what the name does not say; None where it says neither (``best``).
    """

    file: str
    label: str
    position: tuple[int, int] | None


@dataclass(frozen=True)
class Run:
    """The checkpoints of one training run, earliest first; ``best`` and ``last`` are at the end if nothing places them.

    Attributes:
        name: the files' name with ``#`` for the counters: ``"epoch=#-step=#"``.
        unit: what is counted: ``"epoch"``, ``"step"`` or ``"checkpoint"``.
        snapshots: at least two.
    """

    name: str
    unit: str
    snapshots: tuple[Snapshot, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files' names, in order."""
        return tuple(snapshot.file for snapshot in self.snapshots)

    def at(self, file: str) -> Snapshot | None:
        """The snapshot that ``file`` is, or None."""
        return next((snapshot for snapshot in self.snapshots if snapshot.file == file), None)

    def placed(self, epochs: Mapping[str, int]) -> Run:
        """With the epochs that files hold inside, by name of file, for those whose name does not say: ``best`` etc."""
        known = [
            replace(row, label=f"{row.label} ({epochs[row.file]})", position=(epochs[row.file], -1))
            if row.position is None and row.file in epochs and self.unit == "epoch"
            else row
            for row in self.snapshots
        ]
        return replace(self, snapshots=_in_order(known))


@dataclass(frozen=True)
class _Name:
    """A file's name taken apart: where it is, its name less counters and metrics, and its counters."""

    file: str
    home: str
    template: str
    words: frozenset[str]
    counters: tuple[tuple[str, int], ...]  # ("epoch", 3) …
    special: str


def find_runs(files: Iterable[str], sizes: Mapping[str, int] | None = None) -> tuple[Run, ...]:
    """The runs among ``files`` (names, or paths one folder deep), longest first; files of no run are left out.

    ``sizes`` in bytes, where known, keep apart what only looks numbered (``vgg_16.pth``, ``vgg_19.pth``).

    >>> [run.name for run in find_runs(["epoch_1.pt", "epoch_10.pt", "epoch_2.pt", "best.pt", "resnet18.pt"])]
    ['epoch_#']
    >>> [row.label for row in find_runs(["epoch_1.pt", "epoch_10.pt", "epoch_2.pt", "best.pt"])[0].snapshots]
    ['1', '2', '10', 'best']
    """
    names = [_taken_apart(file) for file in dict.fromkeys(files) if not _SHARD.search(file)]
    names = [name for name in names if not name.words & _OTHER]
    groups: dict[tuple[str, str, str], list[_Name]] = {}
    specials: dict[tuple[str, frozenset[str]], list[_Name]] = {}
    for name in names:
        if name.special:
            specials.setdefault((name.home, name.words), []).append(name)
        elif name.counters:
            groups.setdefault((name.home, name.template, PurePosixPath(name.file).suffix), []).append(name)
    numbered = [_of_one_size(group, sizes or {}) for group in groups.values()]
    numbered = [group for group in numbered if len(group) > 1]
    runs = []
    for group in numbered:
        home, words = group[0].home, group[0].words
        beside = specials.pop((home, words), [])
        if words and sum(other[0].home == home for other in numbered) == 1:
            beside += specials.pop((home, frozenset()), [])  # a bare "best" beside the only run there is
        runs.append(_run([*group, *beside], group[0].template))
    for (_, words), group in specials.items():
        if len(group) > 1 and len({name.special for name in group} - {"checkpoint"}) >= len(group) - 1:
            runs.append(_run(group, "-".join(sorted(words)) or "checkpoint"))
    return tuple(sorted(runs, key=lambda run: (-len(run.snapshots), run.files)))


def run_of(file: str, files: Iterable[str], sizes: Mapping[str, int] | None = None) -> Run | None:
    """The run that ``file`` belongs to, or None.

    >>> run_of("last.ckpt", ["epoch=0-step=9.ckpt", "epoch=1-step=18.ckpt", "last.ckpt"]).unit
    'epoch'
    """
    return next((run for run in find_runs(files, sizes) if run.at(file)), None)


def _run(names: list[_Name], template: str) -> Run:
    units = {unit for name in names for unit, _ in name.counters}
    unit = "epoch" if "epoch" in units else "step" if "step" in units else "checkpoint"
    rows = []
    for name in names:
        counts = dict(name.counters)
        first = counts.get("epoch", counts.get("checkpoint", -1))
        position = (first, counts.get("step", -1)) if counts else None
        number = first if first >= 0 else counts.get("step", -1)
        label = " ".join(part for part in (name.special, str(number) if counts else "") if part)
        rows.append(Snapshot(name.file, label, position))
    rows = [_distinct(row, rows) for row in rows]
    return Run(template, unit, _in_order(rows))


def _distinct(row: Snapshot, rows: list[Snapshot]) -> Snapshot:
    """The row with a label that no other has: its step beside its epoch, or else its file's name."""
    same = [other for other in rows if other.label == row.label]
    if len(same) == 1:
        return row
    if row.position is not None and row.position[1] >= 0 and len({other.position for other in same}) == len(same):
        return replace(row, label=f"{row.label} · {row.position[1]}")
    return replace(row, label=f"{row.label} · {row.file}")


def _in_order(rows: list[Snapshot]) -> tuple[Snapshot, ...]:
    def key(row: Snapshot) -> tuple[int, tuple[int, int], int, str]:
        word = row.label.split(" ")[0]
        if row.position is not None:
            return 1, row.position, word in LAST, row.file
        return (0 if word in FIRST else 2), (0, 0), LAST.index(word) if word in LAST else 0, row.file

    return tuple(sorted(rows, key=key))


def _of_one_size(group: list[_Name], sizes: Mapping[str, int]) -> list[_Name]:
    """The group; of numbered files without a word that says what is counted, only those of about the usual size."""
    if any(unit != "checkpoint" for unit, _ in group[0].counters) or not all(name.file in sizes for name in group):
        return group
    usual = sorted(sizes[name.file] for name in group)[len(group) // 2]
    return [name for name in group if abs(sizes[name.file] - usual) <= max(_SLACK, _LIKE * usual)]


def _taken_apart(file: str) -> _Name:
    path = PurePosixPath(file)
    stem = _bare(path.name)
    counted = _counters(stem)
    special = _special(stem)
    if counted or special or not path.parent.name:
        text, home, counters = stem, str(path.parent), counted
    else:  # the folder has the number: checkpoint-500/model.safetensors
        counted, special = _counters(path.parent.name), _special(path.parent.name)
        text, home, counters = f"{path.parent.name}/{stem}", "/", counted
    places = {place: "#" for place, _, _ in counters}
    tokens = _TOKEN.findall(text)
    template = "".join(
        places.get(place, "~" if _is_metric(tokens, place) else token) for place, token in enumerate(tokens)
    )
    passing = EPOCH | STEP | PLAIN | METRIC | {special}
    words = frozenset(
        token.lower()
        for place, token in enumerate(tokens)
        if token.isalnum() and place not in places and token.lower() not in passing and not _is_metric(tokens, place)
    )
    return _Name(file, home, template, words, tuple((unit, number) for _, unit, number in counters), special)


def _bare(name: str) -> str:
    """The name without its endings."""
    while "." in name and name.rpartition(".")[2].lower() in ENDINGS and name.rpartition(".")[0]:
        name = name.rpartition(".")[0]
    return name


def _special(text: str) -> str:
    words = [token.lower() for token in _TOKEN.findall(text)]
    if words in (["checkpoint"], ["ckpt"]):
        return "checkpoint"  # the one that is overwritten, beside "best"
    return next((word for word in words if word in FIRST + LAST and word != "checkpoint"), "")


def _counters(text: str) -> list[tuple[int, str, int]]:
    """(place among the tokens, unit, number) of each counter: after a word that counts, or else the last number."""
    tokens = _TOKEN.findall(text)
    after: dict[str, list[tuple[int, str, int]]] = {"epoch": [], "step": [], "checkpoint": []}
    lone: list[tuple[int, str, int]] = []
    for place, token in enumerate(tokens):
        if not token.isdigit() or len(token) > 12 or (place + 1 < len(tokens) and tokens[place + 1].isalpha()):
            continue
        if _is_metric(tokens, place):
            continue
        word = _word_before(tokens, place).lower()
        unit = "epoch" if word in EPOCH else "step" if word in STEP else "checkpoint" if word in PLAIN else ""
        if unit:
            after[unit].append((place, unit, int(token)))
        elif (place == 0 or not tokens[place - 1].isalnum()) and not _is_version(tokens, place):
            lone.append((place, "checkpoint", int(token)))
    named = after["epoch"][:1] + after["step"][:1]
    return sorted(named) or after["checkpoint"][-1:] or lone[-1:]


def _is_version(tokens: list[str], place: int) -> bool:
    """Whether the number continues one that is part of a word: ``squeezenet1_0``."""
    return place > 2 and tokens[place - 2].isdigit() and tokens[place - 3].isalpha()


def _word_before(tokens: list[str], place: int) -> str:
    """The word in front of a number, with or without a separator between."""
    before = tokens[max(0, place - 2) : place]
    if before and before[-1].isalpha():
        return before[-1]
    return before[0] if len(before) == 2 and before[0].isalpha() and len(before[1]) == 1 else ""


def _is_metric(tokens: list[str], place: int) -> bool:
    number = tokens[place].replace(".", "").isdigit()
    return number and ("." in tokens[place] or _word_before(tokens, place).lower() in METRIC)
