"""``compress SOURCE --budget B --out FILE``: layers in small layers within a budget, as a file that loads back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sp_core.commands import options
from sp_core.errors import SpError

if TYPE_CHECKING:
    from sp_core.network import Network

SUFFIX = ".safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_source(parser)
    parser.add_argument(
        "--budget", type=float, default=0.5, help="share of the layers' multiply-accumulates to keep (default 0.5)"
    )
    parser.add_argument("--scheme", default=None, help="svd, separable, basis or tucker alone; by default the best")
    parser.add_argument("--out", default="compressed.safetensors", metavar="FILE", help="its card goes beside it")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Allot the ranks, factor the layers, write the file and its card; nothing is trained."""
    from sp_core import weights

    path = Path(args.out)
    if path.suffix != SUFFIX:
        raise SpError(f"The compressed network is a {SUFFIX} file; got --out {args.out}.")
    if args.scheme not in (None, *weights.SCHEMES):
        raise SpError(f"The scheme must be one of {', '.join(weights.SCHEMES)}; got '{args.scheme}'.")
    net = options.load(args)
    names = weights.rebuildable(net)
    places: dict[str, Any] = options.progress(_places(net, names, args.scheme), len(names), "layers")
    plan = weights.allot(places, args.budget) if places else {}
    small = weights.compress(net, plan)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small.file())
        path.with_suffix(".json").write_text(json.dumps(small.card(), indent=1))
    except OSError as error:
        raise SpError(f"The network cannot be written to {path} ({error}); name a file of yours.") from error
    rows = [asdict(cut) for cut in small.cuts]
    lines = [
        f"{row['layer']:32} {row['scheme']:9} rank {row['rank']:4}  error {row['error']:.3f}  "
        f"{row['macs']:,} of {row['macs_before']:,} MACs"
        for row in rows
    ]
    lines.append(
        f"{path}: {small.parameters:,} of {small.parameters_before:,} parameters, {small.macs:,} of "
        f"{small.macs_before:,} MACs. Nothing was trained; measure what it costs in accuracy before you use it."
    )
    return {
        "file": str(path),
        "layers": rows,
        "parameters": small.parameters,
        "parameters_before": small.parameters_before,
        "macs": small.macs,
        "macs_before": small.macs_before,
        "text": "\n".join(lines),
    }


def _places(net: Network, names: tuple[str, ...], scheme: str | None) -> Iterator[dict[str, Any]]:
    """Each layer with the curves of its schemes; one that cannot be decomposed stays as it is."""
    from sp_core import weights

    places: dict[str, Any] = {}
    for name in names:
        # No finite weights, or a matrix too large: then the layer is not among the rows of the answer.
        with suppress(SpError):
            place = weights.site(net, name)
            curves = [row for row in weights.curves(place) if scheme in (None, row.scheme)]
            if curves:
                places[name] = (place, curves)
        yield dict(places)
