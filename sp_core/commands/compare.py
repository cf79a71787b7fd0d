"""``compare A B``: what changed from one checkpoint to another."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """``A``, ``B`` and ``--device``."""
    options.add_source(parser)
    parser.add_argument("other", metavar="OTHER", help="the second checkpoint, named like the first")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Totals, ``frozen`` layers, ``layers`` and ``tensors`` of :class:`sp_core.comparison.Comparison`."""
    from sp_core.checkpoints import load
    from sp_core.comparison import compare

    net, other = options.load(args), load(args.other, device=args.device)
    args.notes = (*net.warnings, *(note for note in other.warnings if note not in net.warnings))
    found = compare(net, other)
    lines = [*found.sentences(), "", f"{'layer':40} {'status':20} {'relative':>9} {'cosine':>8} {'statistics':>10}"]
    lines += [
        f"{layer.layer:40} {layer.status:20} {_say(layer.relative):>9} {_say(layer.cosine):>8} "
        f"{_say(layer.statistics):>10}"
        for layer in found.layers
    ]
    return {
        "first": {"name": found.first, "fingerprint": found.fingerprints[0]},
        "second": {"name": found.second, "fingerprint": found.fingerprints[1]},
        "relative": found.relative,
        "cosine": found.cosine,
        "largest": found.largest,
        "statistics": found.statistics,
        "frozen": list(found.frozen),
        "layers": [asdict(layer) for layer in found.layers],
        "tensors": found.rows(),
        "text": "\n".join(lines),
    }


def _say(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
