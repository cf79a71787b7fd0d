"""``complexity``: parameters and multiply-accumulates, layer by layer."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from sp_core.commands import options
from sp_core.counts import CONVENTIONS, complexity, in_words

# What the last column holds under each convention.
_UNIT = {"torch": "MACs", "ioannou": "MACs (Ioannou)", "author": "author FLOPs"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_source(parser)
    parser.add_argument("--leaves", action="store_true", help="leave out containers such as 'layer1'")
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default="torch",
        help="rule of counting: torchvision's (the default), Ioannou's thesis, or CondenseNet's and MSDNet's authors'",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Count."""
    net = options.load(args)
    answer = complexity(net, args.convention)
    unit = _UNIT[answer.convention]
    layers = [layer for layer in net.layers if layer.leaf or not args.leaves]
    rows = [
        {"name": layer.name, "kind": layer.kind, "output": layer.output_shape, **asdict(answer.per_layer[layer.name])}
        for layer in layers
    ]
    width = max((len(row["name"]) for row in rows), default=5)
    lines = [f"{'layer':{width}}  {'kind':18}  {'output':>16}  {'parameters':>13}  {unit:>15}"]
    for row in rows:
        shape = "×".join(map(str, row["output"]))
        counts = f"{row['parameters']:>13,}  {row['macs']:>15,}"
        lines.append(f"{row['name']:{width}}  {row['kind']:18}  {shape:>16}  {counts}")
    size = "×".join(map(str, net.input_size))
    lines.append(
        f"{net.name}: {answer.parameters:,} parameters ({in_words(answer.parameters)}), "
        f"{answer.macs:,} {unit} ({in_words(answer.macs)}) for one {size} image; {answer.status}"
        + (f", not counted: {', '.join(answer.skipped)}" if answer.skipped else "")
    )
    return {
        "text": "\n".join(lines),
        "name": net.name,
        "fingerprint": net.fingerprint,
        "parameters": answer.parameters,
        "macs": answer.macs,
        "convention": answer.convention,
        "buffers": answer.buffers,
        "status": answer.status,
        "skipped": answer.skipped,
        "input": answer.input_size,
        "layers": rows,
    }
