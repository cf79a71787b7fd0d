"""``dream``: DeepDream on a picture."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, the picture, what is strengthened, and how."""
    options.add_source(parser)
    options.add_image(parser)
    parser.add_argument(
        "--layer", default=None, metavar="L", help="a layer, or a unit layer:channel; by default one two thirds up"
    )
    parser.add_argument("--guide", default=None, metavar="FILE", help="a picture whose features are to appear")
    parser.add_argument("--octaves", type=int, default=None, help="how many sizes (default: as many as fit, at most 5)")
    parser.add_argument("--scale", type=float, default=1.4, help="from one octave to the next (default 1.4)")
    parser.add_argument("--steps", type=int, default=10, help="at each octave (default 10)")
    parser.add_argument("--strength", type=float, default=1.5, help="of a step, in 1/255 a pixel (default 1.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the random shifts (default 0)")
    options.add_precision(parser)
    options.add_output(parser, "dream.png")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Dream; return what was strengthened and from where to where."""
    from sp_core.images import open_image, to_picture
    from sp_core.synthesis import DreamSettings, dream

    settings = DreamSettings(
        target=args.layer,
        octaves=args.octaves,
        scale=args.scale,
        steps=args.steps,
        strength=args.strength,
        seed=args.seed,
        precision=args.precision,
    )
    image = open_image(args.image)
    guide = open_image(args.guide) if args.guide else None
    net = options.load(args)
    steps = dream(net, image, settings, guide=guide)
    first = next(steps)
    if first.note:
        print(f"note: {first.note}", file=sys.stderr)
    last = options.progress(steps, first.steps - 1, "dream") if first.steps > 1 else first
    path = options.write_picture(to_picture(last.image), args.out)
    h, w = last.image.shape[1:]
    return {
        "network": net.name,
        "fingerprint": net.fingerprint,
        "target": last.name,
        "octaves": last.octaves,
        "steps": last.steps,
        "seed": settings.seed,
        "precision": last.precision,
        "size": [h, w],
        "objective_first": first.objective,
        "objective_last": last.objective,
        "note": last.note,
        "picture": path,
        "text": f"{last.name}: {first.objective:.4g} in the first step, {last.objective:.4g} in the last, "
        f"{last.octaves} octaves, {w}×{h} pixels: {path}",
    }
