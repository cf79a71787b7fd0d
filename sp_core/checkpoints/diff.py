"""How the tensors of a checkpoint differ from those of an architecture that a person names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_core.checkpoints import heads
from sp_core.checkpoints.catalogue import Blueprint
from sp_core.checkpoints.fit import plan_of
from sp_core.checkpoints.named import Asked, Options, asked
from sp_core.checkpoints.read import Checkpoint, read
from sp_core.checkpoints.view import View, first_five, views

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Diff:
    """What fits and what does not, after the class count and the input's channels are adapted.

    Attributes:
        architecture: what the file was compared with, options and all.
        fits: how many tensors have the same name and shape.
        missing: names that the file lacks.
        unexpected: names that the architecture has no place for.
        reshaped: ``(name, shape in the file, shape in the architecture)``.
    """

    architecture: str
    fits: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, Shape, Shape], ...]

    @property
    def same(self) -> bool:
        """Whether everything fits."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def text(self) -> str:
        """Counts, and the first five of each kind, as one sentence.

        >>> Diff("zoo:x", 3, ("fc.bias",), (), (("fc.weight", (2, 4), (2, 5)),)).text
        '3 of 5 tensors of zoo:x fit; 1 missing (fc.bias), 1 of another shape (fc.weight is 2×4 instead of 2×5).'
        """
        total = self.fits + len(self.missing) + len(self.reshaped)
        said = []
        if self.missing:
            said.append(f"{len(self.missing)} missing ({first_five(self.missing)})")
        if self.unexpected:
            said.append(f"{len(self.unexpected)} without a place ({first_five(self.unexpected)})")
        if self.reshaped:
            shapes = [f"{name} is {_shape(have)} instead of {_shape(want)}" for name, have, want in self.reshaped]
            said.append(f"{len(self.reshaped)} of another shape ({first_five(shapes)})")
        rest = f"; {', '.join(said)}" if said else ""
        return f"{self.fits} of {total} tensors of {self.architecture} fit{rest}."


def _shape(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a number"


def diff(source: Checkpoint | str | Path, architecture: str, options: Options | None = None) -> Diff:
    """Compare a checkpoint, or the file at a path, with ``architecture`` (``"torchvision:resnet18"``).

    ``options`` are those of :func:`sp_core.checkpoints.named.asked`. Wrapping prefixes are tried as everywhere; the
    view in which most tensors fit counts.

    Raises:
        SpError: the file cannot be read, or there is no such architecture or option.
    """
    wanted = asked(architecture, options)
    checkpoint = source if isinstance(source, Checkpoint) else read(source)
    return closest(checkpoint.tensors, wanted)


def closest(tensors: Any, wanted: Asked) -> Diff:
    """The difference in the view where most tensors fit."""
    return max((between(plan_of(wanted.name, seen), seen, wanted) for seen in views(tensors)), key=lambda one: one.fits)


def between(plan: Blueprint, seen: View, wanted: Asked) -> Diff:
    """The difference of one view from one blueprint."""
    found, shapes = seen.shapes, dict(plan.shapes)
    classes = wanted.classes or heads.class_count(plan, found)
    if classes:
        shapes |= {key: (classes, *shapes[key][1:]) for key in plan.head}
    channels = wanted.channels or heads.input_channels(plan, found)
    stem = shapes.get(plan.stem)
    if stem is not None and channels:
        shapes[plan.stem] = stem = (stem[0], channels, *stem[2:])
    if stem is not None and wanted.small:
        side = found.get(plan.stem, (0, 0, 3, 3))[2:]
        shapes[plan.stem] = (*stem[:2], *(side if len(side) == 2 and max(side) < stem[2] else (3, 3)))
    common = [key for key in found if key in shapes]
    reshaped = tuple((key, found[key], shapes[key]) for key in common if found[key] != shapes[key])
    return Diff(
        plan.name,
        len(common) - len(reshaped),
        tuple(key for key in shapes if key not in found),
        tuple(key for key in found if key not in shapes),
        reshaped,
    )
