"""``train-table TABLE``: train every row of one of the lectures' comparisons and keep the numbers as data."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sp_core.training import TABLES, compare, table
from sp_core.training.comparing import kept
from sp_core.training.loop import PRECISIONS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``train-table``."""
    parser.add_argument("table", metavar="TABLE", help="one of: " + ", ".join(TABLES))
    parser.add_argument("--data", required=True, metavar="FOLDER", help="the folder of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row (default: 1)")
    parser.add_argument("--images", type=int, help="images shown in training, repeats counted (default: the table's)")
    parser.add_argument("--batch", type=int, help="images an update (default: the table's)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda when there is one)")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: bfloat16 on cuda, float32 on the CPU")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--workers", type=int, default=1, help="networks trained at once (default: 1)")
    parser.add_argument("--out", default="assets/tables", metavar="FOLDER", help="of TABLE.json")
    parser.add_argument("--weights", default="runs", metavar="FOLDER", help="of checkpoints and states (default: runs)")
    parser.add_argument("--keep", metavar="FOLDER", help="copy the checkpoints that the app bundles to this folder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, with a line on standard error for each run; return what the table's file holds."""
    chosen = table(args.table)
    chosen = replace(chosen, images=args.images or chosen.images, batch=args.batch or chosen.batch)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    lines = []
    for finished in compare(
        chosen,
        args.out,
        data=args.data,
        seeds=args.seeds,
        device=device,
        precision=args.precision,
        compiled=args.compile,
        workers=args.workers,
        weights=args.weights,
    ):
        card = finished.card
        lines.append(f"{finished.label}, seed {finished.seed}: {card['held_out_accuracy']:.2%}")
        print(f"{finished.done}/{finished.runs}  {lines[-1]}  ({card['seconds']:.0f} s)", file=sys.stderr, flush=True)
    bundled = kept(chosen, args.weights, args.keep) if args.keep else []
    path = Path(args.out) / f"{chosen.name}.json"
    return {
        "table": chosen.name,
        "path": str(path),
        "trained": lines,
        "bundled": bundled,
        "text": "\n".join([*lines, f"{chosen.title}: {path}"]),
    }
