"""``describe``: what a checkpoint is."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``."""
    options.add_source(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The card of :func:`sp_core.card.describe`."""
    from sp_core.card import as_text, describe
    from sp_core.checkpoints import load

    card = describe(load(args.source, device=args.device))  # its warnings are in the card
    return card | {"text": as_text(card)}
