"""``singular-values SOURCE``: the spectrum of every weight matrix, and the ranks that follow from it."""

from __future__ import annotations

import argparse
import math
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_source(parser)
    parser.add_argument("--layer", default=None, help="only the weight of this layer")
    parser.add_argument(
        "--matrix",
        default="flat",
        choices=("flat", "positions", "operator"),
        help="which matrix a convolution is: [out, in·k·k]; k·k matrices [out, in], one a kernel position, their "
        "values together; or the linear map of whole maps, with circular padding (default: flat)",
    )
    parser.add_argument("--largest", type=int, default=None, help="operator: maps of at most this many pixels a side")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return one record a weight, in execution order."""
    from sp_core import weights
    from sp_core.errors import SpError
    from sp_core.weights.matrices import find

    if args.largest is not None and not 1 <= args.largest <= 4096:
        raise SpError(f"--largest must be a side in pixels from 1 to 4096; got {args.largest}.")
    net = options.load(args)
    rows = weights.matrices(net)
    wanted = None if args.layer is None else (find(net, args.layer).layer,)
    done: dict[str, weights.Spectrum] = {}

    def steps() -> Any:
        for spectrum in weights.spectrum_steps(net, wanted, args.matrix, args.largest):
            done[spectrum.name] = spectrum
            yield spectrum

    options.progress(steps(), len(rows) if wanted is None else 1, "spectra")
    records = [_record(done[row.name]) for row in rows if row.name in done]
    return {
        "fingerprint": net.fingerprint,
        "matrix": args.matrix,
        "weights": records,
        "text": "\n".join(
            f"{row['name']:40} {row['rows']:5}×{row['columns']:<6} σ₁ {row['largest']:9.4f}  "
            f"effective rank {row['effective_rank']:8.1f}  stable rank {row['stable_rank']:7.1f}  "
            f"90 % {row['rank_90']:5}  99 % {row['rank_99']:5}"
            for row in records
        ),
    }


def _record(spectrum: Any) -> dict[str, Any]:
    from sp_core.weights import band_of

    band = band_of(spectrum)
    return {
        "name": spectrum.name,
        "kind": spectrum.kind,
        "shape": list(spectrum.shape),
        "matrix": spectrum.matrix,
        "maps": list(spectrum.maps),
        "rows": spectrum.rows,
        "columns": spectrum.columns,
        "values": spectrum.values.tolist(),
        "largest": float(spectrum.values[0]) if len(spectrum.values) else math.nan,
        "frobenius": spectrum.frobenius,
        "effective_rank": spectrum.effective_rank,
        "stable_rank": spectrum.stable_rank,
        "rank_90": spectrum.energy_rank(0.9),
        "rank_99": spectrum.energy_rank(0.99),
        "random_largest": float(band.mean[0]) * spectrum.frobenius,
    }
