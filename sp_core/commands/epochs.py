"""``epochs FOLDER``: the checkpoints of a training run in order, and how the weights of the first layers moved."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from sp_core.commands import options

_SCORES = ("loss", "acc", "top1", "error")  # what to print of the record, by a part of its name


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="FOLDER", help="where a training program wrote its checkpoints")
    parser.add_argument("--device", default=None, help="cpu or cuda; by default the GPU when there is one")
    parser.add_argument("--layers", type=int, default=3, help="how many layers to follow, from the first (default 3)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return one record a checkpoint, earliest first."""
    from sp_core.checkpoints import training_run
    from sp_core.errors import SpError
    from sp_core.weights import matrices, over_epochs

    if args.layers < 1:
        raise SpError(f"--layers must be at least 1; got {args.layers}.")
    found = training_run(args.folder)
    layers = tuple(row.layer for row in matrices(_first(found, args.device))[: args.layers])
    moments: list[Any] = []

    def steps() -> Any:
        for one in over_epochs(found, layers, args.device):
            moments.append(one)
            yield one

    options.progress(steps(), len(found.snapshots), "checkpoints")
    args.notes = [f"{one.file}: {one.reason}" for one in moments if one.reason]
    if found.others:
        args.notes.append(f"{args.folder} holds other runs too: {', '.join(found.others)}.")
    return {
        "run": found.run.name,
        "unit": found.run.unit,
        "checkpoints": [_record(one) for one in moments],
        "text": "\n".join([_heading(found.run.unit, layers), *(_line(one, layers) for one in moments)]),
    }


def _first(found: Any, device: str | None) -> Any:
    """The network of the first checkpoint that can be read; raises what was wrong with the last one if none can."""
    from sp_core.errors import SpError

    for snapshot in found.snapshots[:-1]:
        try:
            return found.load(snapshot, device=device)
        except SpError:
            continue
    return found.load(found.snapshots[-1], device=device)


def _record(one: Any) -> dict[str, Any]:
    return {
        "label": one.label,
        "epoch": one.position,
        "file": one.file,
        "fingerprint": one.fingerprint or None,
        "training": dict(one.record),
        "layers": [
            {
                "layer": layer,
                "largest": row.sigma,
                "frobenius": row.norm,
                "effective_rank": row.effective,
                "stable_rank": row.stable,
            }
            for layer, row in one.ranks.items()
        ],
        "warning": one.reason or None,
    }


def _heading(unit: str, layers: tuple[str, ...]) -> str:
    return f"{unit:12} {'file':36} {'fingerprint':16}  effective rank of {', '.join(layers)}; loss and accuracy inside"


def _line(one: Any, layers: tuple[str, ...]) -> str:
    ranks = " ".join(f"{one.ranks[layer].effective:8.2f}" if layer in one.ranks else f"{'-':>8}" for layer in layers)
    said = ", ".join(f"{name} {value:.4g}" for name, value in scores(one.record).items())
    return f"{one.label:12} {one.file:36} {one.fingerprint or '-':16}  {ranks}  {said}".rstrip()


def scores(record: Mapping[str, Any]) -> dict[str, float]:
    """The losses and accuracies in a record, at most three.

    >>> scores({"epoch": 3, "val_loss": 0.2, "arch": "x"})
    {'val_loss': 0.2}
    """
    known = {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and any(s in name.lower() for s in _SCORES)
    }
    return dict(list(known.items())[:3])
