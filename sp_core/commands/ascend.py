"""``ascend``: pictures that drive units of a network, made from noise by gradient ascent."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, what is driven, and how."""
    options.add_source(parser)
    parser.add_argument(
        "--unit", action="append", default=[], metavar="LAYER:CHANNEL[@Y,X]", help="a unit to drive; can be repeated"
    )
    parser.add_argument(
        "--class", action="append", default=[], dest="classes", metavar="K", help="a class number or name; repeatable"
    )
    parser.add_argument("--steps", type=int, default=256, help="of Adam (default 256)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the transforms (default 0)")
    parser.add_argument("--size", type=int, default=None, help="shorter side in pixels; by default what the unit sees")
    parser.add_argument("--lower", action="store_true", help="lower the unit instead of raising it")
    parser.add_argument(
        "--parametrisation", default="fourier", metavar="NAME", help="fourier, pixel or maco (default fourier)"
    )
    parser.add_argument("--transforms", type=float, default=1.0, help="strength of shift, zoom and turn (default 1)")
    parser.add_argument("--centre", action="store_true", help="drive the centre unit instead of the whole channel")
    parser.add_argument("--copies", type=int, default=1, help="pictures of each unit (default 1)")
    parser.add_argument("--diversity", type=float, default=0.0, help="how far apart the copies are driven (default 0)")
    parser.add_argument(
        "--examples", metavar="IMAGE", nargs="+", default=None, help="pictures whose colour statistics are used"
    )
    parser.add_argument("--index", metavar="FOLDER", default=None, help="a patch index, for percentiles on real data")
    options.add_precision(parser)
    options.add_output(parser, "ascend.png")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make the pictures; return what each reached."""
    import torch

    from sp_core.errors import SpError
    from sp_core.figures.synthesis import sheet
    from sp_core.images import open_image
    from sp_core.synthesis import AscentSettings, ascend

    settings = AscentSettings(
        steps=args.steps,
        parametrisation=args.parametrisation,
        sign=-1 if args.lower else 1,
        seed=args.seed,
        size=args.size,
        transforms=args.transforms,
        position="centre" if args.centre else "channel",
        copies=args.copies,
        diversity=args.diversity,
        precision=args.precision,
    )
    goals = [*args.unit, *args.classes]
    if not goals:
        raise SpError("Say what to drive: --unit layer:channel or --class K; either can be repeated.")
    net = options.load(args)
    examples = None
    if args.examples:
        examples = torch.stack([net.view(open_image(name)) for name in args.examples])
    steps = ascend(net, goals, settings, examples=examples)
    last = options.progress(steps, settings.steps, "ascend")
    path = options.write_picture(sheet(last.images).image, args.out)
    assert last.peak is not None, "the last record has it"
    rows = [
        {"name": name, "activation": float(value), "peak": float(peak), "percentile": None, "message": message}
        for name, value, peak, message in zip(last.names, last.activation, last.peak, last.messages, strict=True)
    ]
    if args.index is not None and settings.sign > 0:
        _add_percentiles(rows, net, args.index)
    lines = [_line(row) for row in rows]
    return {
        "network": net.name,
        "fingerprint": net.fingerprint,
        "steps": last.step,
        "seed": settings.seed,
        "precision": last.precision,
        "size": list(last.images.shape[2:]),
        "units": rows,
        "picture": path,
        "text": "\n".join([*lines, f"{last.images.shape[3]}×{last.images.shape[2]} pixels each: {path}"]),
    }


def _add_percentiles(rows: list[dict[str, Any]], net: Any, folder: str) -> None:
    """Where each unit's peak lies among the real images of a patch index."""
    from sp_core.network import Unit
    from sp_core.patches import PatchIndex

    index = PatchIndex(folder)
    index.check_network(net)
    for row in rows:
        if ":" in row["name"]:
            unit = Unit.parse(row["name"].removesuffix(" at the centre"))
            row["percentile"] = index.percentile(Unit(unit.layer, unit.channel), row["peak"])


def _line(row: dict[str, Any]) -> str:
    text = f"{row['name']:24} activation {row['activation']:.4g}, at its strongest {row['peak']:.4g}"
    if row["percentile"] is not None:
        text += f", above {row['percentile']:.1f} % of the real images"
    return text + (f"\n  {row['message']}" if row["message"] else "")
