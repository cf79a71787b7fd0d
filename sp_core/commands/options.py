"""Options that several verbs share, and how a verb reports progress and writes a picture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from sp_core.errors import SpError

if TYPE_CHECKING:
    from sp_core.network import Network

T = TypeVar("T")


def add_source(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, the network, and ``--device``."""
    parser.add_argument("source", metavar="SOURCE", help="bundled:NAME, torchvision:NAME[@WEIGHTS], zoo:NAME or a file")
    parser.add_argument("--device", default=None, help="cpu or cuda; by default the GPU when there is one")


def load(args: argparse.Namespace) -> Network:
    """The network that ``SOURCE`` names; its warnings are printed when the verb has succeeded."""
    from sp_core.checkpoints import load as load_source

    net = load_source(args.source, device=args.device)
    args.notes = net.warnings  # a mistake is one line on standard error, so notes wait for the end
    return net


def add_image(parser: argparse.ArgumentParser) -> None:
    """``--image FILE``."""
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture to look at")


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """``--out FILE``."""
    parser.add_argument("--out", default=default, metavar="FILE", help=f"where the picture goes (default {default})")


def write_picture(image: Image.Image, path: str) -> str:
    """Save ``image`` by the ending of ``path``; raises SpError where that is not possible."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target)
    except (OSError, ValueError) as error:
        raise SpError(
            f"The picture cannot be written to {path} ({error}); name a .png file in a folder of yours."
        ) from error
    return str(target)


def progress(records: Iterable[T], total: int, label: str, done: Callable[[T], int] | None = None) -> T:
    """Run ``records`` to its end with a bar on standard error; return the last record.

    ``done`` says how many of ``total`` a record has done; by default each record is one.
    """
    last: T | None = None
    shown = 0.0
    count = 0
    for count, record in enumerate(records, start=1):
        last = record
        now = time.monotonic()
        if sys.stderr.isatty() and now - shown > 0.1:
            _bar(done(record) if done else count, total, label)
            shown = now
    if sys.stderr.isatty() and last is not None:
        _bar(done(last) if done else count, total, label)
        print(file=sys.stderr)
    if last is None:
        raise SpError(f"There is nothing to do for {label}.")
    return last


def _bar(value: int, total: int, label: str) -> None:
    filled = round(30 * min(1.0, value / max(total, 1)))
    print(f"\r{label} {'█' * filled}{'·' * (30 - filled)} {value}/{total}", end="", file=sys.stderr, flush=True)
