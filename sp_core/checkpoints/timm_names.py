"""Which of timm's architectures a checkpoint is, without building 1300 of them: a table of names and shapes.

``assets/timm.json`` says, for each architecture of one version of timm, the hash of its names and shapes with the class
count and the input's channels left open, and which architectures of one hash compute the same thing. ``timm_table``
makes it. The table only chooses: the chosen architecture is then built by the installed timm and must fit strictly. The
library itself is optional and imported only when the table knows the checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sp_core.checkpoints.catalogue import empty_on_meta, shapes_of
from sp_core.checkpoints.heads import fill
from sp_core.checkpoints.view import View
from sp_core.errors import SpError

TABLE = Path(__file__).resolve().parents[2] / "assets" / "timm.json"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Row:
    """The architectures of timm that have one set of names and shapes.

    Attributes:
        head: the names whose first axis is the number of classes; empty for a body without a head.
        stem: the names whose second axis counts the input's channels, and how often (16 where 4 × 4 pixels are folded
            into channels).
        shapes: the hash of everything but the head, with the stem's channels left open.
        alike: names of architectures; those of one group compute the same, those of two groups do not.
    """

    head: frozenset[str]
    stem: Mapping[str, int]
    shapes: str
    alike: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Match:
    """A row that fits a checkpoint, with the numbers its shapes dictate (``classes`` 0: no head)."""

    row: Row
    classes: int
    channels: int

    @property
    def name(self) -> str:
        """The likeliest architecture: those with published weights come first in the table."""
        return self.row.alike[0][0]


@dataclass(frozen=True)
class Table:
    """``rows`` by the hash of the names of the body, ``heads`` in use, and the version of timm they were made with."""

    version: str
    rows: Mapping[str, tuple[Row, ...]]
    heads: tuple[frozenset[str], ...]


def hash_names(names: Iterable[str]) -> str:
    """12 hexadecimal digits, the same whatever the order."""
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "replace")).hexdigest()[:12]


def hash_shapes(body: Shapes, stem: Mapping[str, int]) -> str:
    """12 hexadecimal digits of names and shapes, the second axis of each tensor of ``stem`` left open."""
    lines = []
    for key, shape in body.items():
        axes = [str(axis) for axis in shape]
        if key in stem:
            axes[1] = f"{stem[key]}c"
        lines.append(f"{key} {'x'.join(axes)}")
    return hash_names(lines)


@cache
def table() -> Table:
    """The table of ``assets/timm.json``; an empty one where there is no such file."""
    if not TABLE.is_file():
        return Table("", {}, ())
    content = json.loads(TABLE.read_text("utf-8"))
    heads = [frozenset(head) for head in content["heads"]]
    stems = content["stems"]
    rows = {
        body: tuple(
            Row(heads[head], stems[stem], shapes, tuple(tuple(group) for group in alike))
            for head, stem, shapes, alike in lines
        )
        for body, lines in content["rows"].items()
    }
    return Table(content["timm"], rows, tuple(dict.fromkeys(heads)))


def matches(found: Shapes) -> list[Match]:
    """The rows that fit names and shapes (without batch counters), those with a head first.

    >>> from sp_core.checkpoints.catalogue import blueprint
    >>> [(match.name, match.classes) for match in matches(blueprint("torchvision:densenet121").shapes)]
    [('densenet121', 1000)]
    """
    fits = []
    for head in sorted(table().heads, key=len, reverse=True):
        if not head <= found.keys():
            continue
        body = {key: shape for key, shape in found.items() if key not in head}
        for row in table().rows.get(hash_names(body), ()):
            if row.head != head:
                continue
            classes = {found[key][0] if found[key] else 0 for key in head} or {0}
            channels = _channels(row, found)
            if channels and len(classes) == 1 and hash_shapes(body, row.stem) == row.shapes:
                fits.append(Match(row, classes.pop(), channels))
    return fits


def _channels(row: Row, found: Shapes) -> int:
    """What the stem's tensors agree on; 0 when they do not. Without a stem it is the usual 3."""
    counts = set()
    for key, times in row.stem.items():
        shape = found.get(key, ())
        if len(shape) < 2 or shape[1] % times:
            return 0
        counts.add(shape[1] // times)
    return counts.pop() if len(counts) == 1 else (3 if not counts else 0)


def installed() -> bool:
    """Whether timm can be imported, without importing it."""
    try:
        return find_spec("timm") is not None
    except (ImportError, ValueError):  # a test or a person put None in its place
        return False


def create(name: str, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """Timm's architecture with random weights; ``classes`` 0: without a head, None: its usual number of them."""
    import timm

    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    options |= {} if channels is None else {"in_chans": channels}
    return timm.create_model(name, pretrained=False, **options)


def skeleton(name: str, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """The same with empty meta tensors for weights where timm can build it so, else with random ones.

    Raises:
        SpError: timm is not installed, or cannot make ``name`` so.
    """
    with contextlib.suppress(Exception), empty_on_meta():
        module = create(name, classes, channels)
        if not _lacks_values(module):
            return module
    # Some buffers are worked out in the constructor and not saved (blur kernels, window masks): they must be real.
    try:
        with torch.random.fork_rng(devices=[]):
            return create(name, classes, channels)
    except ImportError as error:
        raise SpError("timm is not installed; install it with: pip install timm") from error
    except Exception as error:  # timm raises whatever its constructors do
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"timm:{name} cannot be made ({reason}); check the name.") from error


def filled(name: str, classes: int, channels: int, seen: View) -> nn.Module | None:
    """Timm's architecture with the weights of ``seen``; None where they do not fit strictly."""
    try:
        module = skeleton(name, classes, channels)
    except SpError:  # another version of timm, without that name
        return None
    if shapes_of(module) != seen.shapes:
        return None
    fill(module, seen.tensors)
    return module


def _lacks_values(module: nn.Module) -> bool:
    saved = module.state_dict().keys()
    return any(buffer.is_meta for name, buffer in module.named_buffers() if name not in saved)


def facts(name: str) -> Mapping[str, Any]:
    """How timm feeds ``name``: ``input_size``, ``mean``, ``std``, ``crop_pct`` …, for its first weights."""
    import timm

    found = timm.get_pretrained_cfg(name)
    return found.to_dict() if found is not None else {}
