"""``receptive-fields``: size, stride and start of every layer's receptive field."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands import options
from sp_core.receptive_field import receptive_fields


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_source(parser)
    parser.add_argument(
        "--gates",
        choices=["local", "strict"],
        default="local",
        help="hold squeeze-and-excitation gates and statistics of a map constant (local), or count them (strict)",
    )
    parser.add_argument("--leaves", action="store_true", help="leave out containers such as 'layer1'")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read the fields."""
    net = options.load(args)
    fields = receptive_fields(net, args.gates)
    rows: list[dict[str, Any]] = []
    for layer in net.layers:
        rf = fields[layer.name]
        if args.leaves and not layer.leaf:
            continue
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "output": layer.output_shape,
                "size": rf.size,
                "stride": rf.stride,
                "start": rf.start,
                "status": rf.status,
                "per_channel": rf.per_channel,
                "note": rf.note,
            }
        )
    width = max((len(row["name"]) for row in rows), default=5)
    lines = [f"{'layer':{width}}  {'kind':18}  {'size':>12}  {'stride':>8}  {'start':>12}  status"]
    for row in rows:
        numbers = f"{_words(row['size']):>12}  {_words(row['stride']):>8}  {_words(row['start']):>12}"
        status = row["status"] + (f" ({row['note']})" if row["note"] and row["status"] != "complete" else "")
        lines.append(f"{row['name']:{width}}  {row['kind']:18}  {numbers}  {status}")
    return {
        "text": "\n".join(lines),
        "name": net.name,
        "fingerprint": net.fingerprint,
        "input": net.input_size,
        "gates": args.gates,
        "layers": rows,
    }


def _words(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
