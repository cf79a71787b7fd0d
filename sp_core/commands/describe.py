"""``describe``: what a checkpoint is."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, and how it is fed where a person knows better."""
    options.add_source(parser)
    options.add_feeding(parser)
    parser.add_argument(
        "--architecture", metavar="NAME", default="", help="what a file is: torchvision:NAME, zoo:NAME …"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the architecture: classes=10, channels=1, small=true, width_mult=0.5 …",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The card of :func:`sp_core.card.describe`."""
    from sp_core.card import as_text, describe
    from sp_core.checkpoints import load
    from sp_core.checkpoints.named import option

    given = dict(option(text) for text in args.option)
    net = load(args.source, device=args.device, architecture=args.architecture, **given)
    card = describe(options.fed(net, args))  # its warnings are in the card
    return card | {"text": as_text(card)}
