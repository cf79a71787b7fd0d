"""The tables that this project trained itself: ``assets/tables/*.json``, one file a table.

A file holds ``name``, ``title``, ``source`` (the published table it stands beside), ``data``, ``budget`` and ``rows``;
a row has ``label``, ``architecture`` (a name of the zoo), ``options``, ``parameters``, ``macs``, ``seeds`` (what each
run came to; rows without one are left out) and ``published`` (``accuracy`` or ``error`` with its ``source``, or null).
The folder may be missing.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sp_core.errors import SpError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "tables"


@dataclass(frozen=True)
class Run:
    """What one run came to: accuracy on the test images in [0, 1], loss, seconds (None where they were not kept)."""

    seed: int
    accuracy: float
    loss: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: as the published table calls it.
        architecture, options: of the zoo.
        parameters, macs: what it costs; None where the file does not say.
        runs: one a seed.
        published_error: in percent; None where the published table has none.
        published_source: where that stands.
    """

    label: str
    architecture: str
    options: Mapping[str, Any]
    parameters: int | None
    macs: int | None
    runs: tuple[Run, ...]
    published_error: float | None = None
    published_source: str = ""

    @property
    def errors(self) -> tuple[float, ...]:
        """The test error of each run, in percent."""
        return tuple(100 * (1 - run.accuracy) for run in self.runs)

    @property
    def error(self) -> float:
        """The mean test error over the seeds, in percent."""
        return statistics.fmean(self.errors)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds (n − 1), in percent; None for one seed."""
        return statistics.stdev(self.errors) if len(self.runs) > 1 else None


@dataclass(frozen=True)
class Table:
    """Rows that were trained with one budget: images seen, batch, device, precision, seconds."""

    name: str
    title: str
    source: str
    data: str
    rows: tuple[Row, ...]
    budget: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The name of the images alone: ``data`` may say more of them."""
        return self.data.split()[0].rstrip(",.:;")

    def standard_error(self, row: Row) -> float | None:
        """Of one run's error by the number of test images alone, in percent: √(e (1 − e) / n).

        None where the file does not say how many images there were. Other seeds differ by more.

        >>> row = Row("a", "wrn-16-1", {}, None, None, (Run(0, 0.5),))
        >>> Table("t", "T", "", "CIFAR-10", (row,), {"test_images": 10_000}).standard_error(row)
        0.5
        """
        count = self.budget.get("test_images")
        return 100 * math.sqrt(row.error / 100 * (1 - row.error / 100) / count) if count else None

    def in_words(self) -> str:
        """The budget as a person says it.

        >>> row = Row("a", "wrn-16-1", {}, None, None, (Run(0, 0.5),))
        >>> Table("t", "T", "", "CIFAR-10", (row,), {"images": 100_000, "batch": 128, "device": "cpu"}).in_words()
        '2 passes over 50,000 images on a CPU in batches of 128, one seed: orders may change with longer training.'
        """
        budget = self.budget
        images, sizes = budget.get("images"), {"CIFAR-10": 50_000, "CIFAR-100": 50_000}
        parts = []
        if images and (size := sizes.get(self.dataset)):
            passes = images / size
            times = "one pass" if passes == 1 else f"{passes:.3g} passes"
            parts.append(f"{times} over {size:,} images")
        elif images:
            parts.append(f"{images:,} images")
        names = {"cpu": "a CPU", "cuda": "a GPU", "mps": "a GPU"}
        if devices := dict.fromkeys(names.get(one.lower(), one) for one in _several(budget, "device")):
            parts.append(f"on {' and '.join(devices)}")
        if precisions := [one for one in _several(budget, "precision") if one != "float32"]:
            parts.append(f"in {' and '.join(precisions)}")
        if budget.get("batch"):
            parts.append(f"in batches of {budget['batch']:,}")
        fewest, most = (f(len(row.runs) for row in self.rows) for f in (min, max))
        seeds = "one seed" if most == 1 else f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
        words = " ".join(parts) or "a budget that was not noted"
        return f"{words[0].upper()}{words[1:]}, {seeds}: orders may change with longer training."


def _several(budget: Mapping[str, Any], what: str) -> list[str]:
    """``device`` or ``devices`` of a budget, as texts."""
    one = budget.get(f"{what}s") or budget.get(what) or []
    return [str(item) for item in one] if isinstance(one, (list, tuple)) else [str(one)]


def tables(folder: Path | None = None) -> tuple[Table, ...]:
    """Every table in ``folder`` (``assets/tables`` by default), by name; none where there is no such folder.

    >>> tables(Path("nowhere"))
    ()
    """
    return tuple(read(path) for path in sorted((folder or FOLDER).glob("*.json")))


def read(path: Path) -> Table:
    """One table; raises SpError where the file is none."""
    try:
        text = json.loads(path.read_text("utf-8"))
        rows = tuple(_row(row, path.name) for row in text["rows"] if row["seeds"])  # the others wait to be trained
        table = Table(
            text["name"], text["title"], text.get("source") or "", text["data"], rows, text.get("budget") or {}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpError(
            f"{path.name} is not a table of trained networks ({type(error).__name__}: {error}); make it again."
        ) from error
    if not rows:
        raise SpError(f"{path.name} has no row that was trained; train it, or remove it.")
    return table


def _row(row: Mapping[str, Any], file: str) -> Row:
    runs = tuple(Run(run["seed"], run["accuracy"], run.get("loss"), run.get("seconds")) for run in row["seeds"])
    if not all(0 <= run.accuracy <= 1 for run in runs):
        raise SpError(f"{file}: the row '{row['label']}' needs runs with accuracies from 0 to 1; make it again.")
    published = row.get("published") or {}
    error = published.get("error")
    if error is None and published.get("accuracy") is not None:
        accuracy = float(published["accuracy"])
        error = 100 - (100 * accuracy if accuracy <= 1 else accuracy)
    return Row(
        row["label"], row["architecture"], row.get("options") or {}, row.get("parameters"), row.get("macs"), runs,
        None if error is None else float(error) if error >= 1 else 100 * float(error), published.get("source") or "",
    )  # fmt: skip
