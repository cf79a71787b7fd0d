"""What papers and lectures print of architectures: errors beside costs, ILSVRC by year, and where a slide is wrong.

The records are data: ``assets/figures/*.json``, each with its source. They are checked as they are read, and the counts
that a record calls exact are those of :mod:`sp_core.counts` to the integer (``tests/test_published.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sp_core.counts import CONVENTIONS
from sp_core.errors import SpError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "figures"
DATA = ("ImageNet", "CIFAR-10", "CIFAR-100")
CONVENTION_WORDS = {
    "torch": "multiply-accumulates without biases; parameters with those of normalisation",
    "ioannou": "Ioannou's: one addition more a biased output channel; parameters without normalisation",
    "author": "the authors' FLOPs: ReLU and pooling are counted too",
}


@dataclass(frozen=True)
class Record:
    """One published error, with what the network costs.

    Attributes:
        name: as it is printed.
        data: one of :data:`DATA`.
        lecture: whose lecture shows or names it.
        family: the table or the kind of network it belongs to.
        top1_error, top5_error: in percent; None where it is not published (on CIFAR only top-1).
        parameters, macs: what it costs; None where nobody says.
        convention: the rule of counting, one of :data:`sp_core.counts.CONVENTIONS`.
        network, options, size: the architecture of the zoo, how it is made, and its input where it is not the usual
            one; ``network`` is "" when the zoo has none.
        kept: whether ``parameters`` are the free numbers that a symmetric weight keeps after training.
        exact: which of ``"parameters"`` and ``"macs"`` :mod:`sp_core.counts` reproduces.
        counted: which of them no source prints: they are counted by this project.
        protocol: how the error was measured.
        comparable: False where several crops, other augmentation or other preprocessing were used.
        source, note: where it stands, and what to know about it.
    """

    name: str
    data: str
    lecture: str
    family: str
    source: str
    protocol: str
    top1_error: float | None = None
    top5_error: float | None = None
    parameters: int | None = None
    macs: int | None = None
    convention: str = "torch"
    network: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int, int] | None = None
    kept: bool = False
    exact: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    comparable: bool = True
    note: str = ""

    def error(self, which: str) -> float | None:
        """The error in percent: ``"top-1"`` or ``"top-5"``."""
        return self.top5_error if which == "top-5" else self.top1_error


@dataclass(frozen=True)
class Winner:
    """One entry of ILSVRC as a lecture shows it: top-5 error in percent, layers (None before deep networks)."""

    year: int
    who: str
    name: str
    top5_error: float
    layers: int | None
    network: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Milestone:
    """One bar of the chart of top-1 accuracies (percent, ImageNet validation)."""

    year: int
    name: str
    top1_accuracy: float
    network: str
    source: str


@dataclass(frozen=True)
class Ilsvrc:
    """ILSVRC by year, a person's top-5 error in percent with its source, and top-1 accuracies by year."""

    winners: tuple[Winner, ...]
    human: float
    human_source: str
    development: tuple[Milestone, ...]


@dataclass(frozen=True)
class Correction:
    """A slide or a printed table that is wrong.

    Attributes:
        where: the slide.
        says, right, why: what it says, what is right, and how the mistake came about.
        networks: names of the zoo that it is about.
        counted: a count behind it: network, convention, perhaps layer, and ``parameters`` or ``macs``.
    """

    where: str
    says: str
    right: str
    why: str
    networks: tuple[str, ...]
    counted: Mapping[str, Any] = field(default_factory=dict)


T = TypeVar("T")


def _made(kind: type[T], row: Mapping[str, Any], file: str) -> T:
    """``row`` as a ``kind``; lists become tuples."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(row) - known):
        raise SpError(f"{file} has a record with '{unknown[0]}', which is none of its fields: {', '.join(known)}.")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
    except TypeError as error:
        raise SpError(f"{file} has a record that lacks something: {error}; add it.") from error


def _read(file: str) -> Any:
    return json.loads((FOLDER / file).read_text("utf-8"))


@cache
def records() -> tuple[Record, ...]:
    """Every published error.

    >>> next(one.top1_error for one in records() if one.network == "densenet121")
    25.0
    """
    found = tuple(_made(Record, row, "errors.json") for row in _read("errors.json")["records"])
    for one in found:
        checked(one)
    return found


def checked(one: Record) -> Record:
    """``one``, or an SpError that says what is wrong with it.

    >>> checked(Record("net", "ImageNet", "Huang", "a", "", "one crop", top1_error=25.0))
    Traceback (most recent call last):
    ...
    sp_core.errors.SpError: The record 'net' has no source; say where its error stands.
    """
    if not one.source.strip():
        raise SpError(f"The record '{one.name}' has no source; say where its error stands.")
    if one.data not in DATA:
        raise SpError(f"The record '{one.name}' is of '{one.data}'; it must be one of: {', '.join(DATA)}.")
    if one.convention not in CONVENTIONS:
        raise SpError(f"The record '{one.name}' is counted by '{one.convention}', not by one of {CONVENTIONS}.")
    errors = [value for value in (one.top1_error, one.top5_error) if value is not None]
    if not errors or not all(0 < value < 100 for value in errors):
        raise SpError(f"The record '{one.name}' needs an error between 0 and 100 percent; got {errors}.")
    if not set(one.counted) <= set(one.exact) or (one.exact and not one.network):
        raise SpError(f"The record '{one.name}' calls a count exact that nothing stands behind; name its network.")
    return one


@cache
def ilsvrc() -> Ilsvrc:
    """ILSVRC by year.

    >>> [one.name for one in ilsvrc().winners if one.year == 2014], ilsvrc().human
    (['VGG', 'GoogLeNet'], 5.1)
    """
    read = _read("ilsvrc.json")
    return Ilsvrc(
        tuple(_made(Winner, row, "ilsvrc.json") for row in read["winners"]),
        float(read["human"]["top5_error"]),
        str(read["human"]["source"]),
        tuple(_made(Milestone, row, "ilsvrc.json") for row in read["development"]),
    )


@cache
def corrections() -> tuple[Correction, ...]:
    """Where slides and printed tables are wrong.

    >>> next(one.says for one in corrections() if "diracnet18" in one.networks)
    'DiracNet-18: 11.7 M parameters'
    """
    return tuple(_made(Correction, row, "corrections.json") for row in _read("corrections.json")["corrections"])


def corrections_of(network: str) -> tuple[Correction, ...]:
    """Those that are about one architecture."""
    return tuple(one for one in corrections() if network in one.networks)
