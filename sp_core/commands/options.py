"""Options that several verbs share, and how a verb reports progress and writes a picture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from sp_core.errors import SpError

if TYPE_CHECKING:
    from sp_core.network import Network

T = TypeVar("T")


def add_source(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, the network, and ``--device``."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="bundled:NAME, torchvision:NAME[@WEIGHTS], zoo:NAME[(OPTION=VALUE, …)] or a file",
    )
    parser.add_argument("--device", default=None, help="cpu or cuda; by default the GPU when there is one")


def load(args: argparse.Namespace) -> Network:
    """The network that ``SOURCE`` names; its warnings are printed when the verb has succeeded."""
    from sp_core.checkpoints import load as load_source

    net = fed(load_source(args.source, device=args.device), args)
    args.notes = net.warnings  # a mistake is one line on standard error, so notes wait for the end
    return net


def add_feeding(parser: argparse.ArgumentParser) -> None:
    """``--size``, ``--resize``, ``--mean``, ``--std`` and ``--classes``: how it is fed, where a person knows."""
    parser.add_argument("--size", metavar="N|HxW", help="input size in pixels, such as 32 or 32x48 (height × width)")
    parser.add_argument("--resize", type=int, metavar="N", help="shorter side in pixels before the centre crop")
    parser.add_argument("--mean", metavar="M[,M,M]", help="mean of images in [0, 1], for all channels or one each")
    parser.add_argument("--std", metavar="S[,S,S]", help="standard deviation, likewise")
    parser.add_argument(
        "--classes",
        dest="class_names",
        metavar="FILE",
        help="class names: one a line, or JSON (a list, or numbers to names)",
    )


def fed(net: Network, args: argparse.Namespace) -> Network:
    """``net`` fed as the options of :func:`add_feeding` say; itself where the verb has none or none is given."""
    from sp_core.checkpoints import by_hand

    given: dict[str, Any] = {}
    channels = net.input_size[0]
    if getattr(args, "size", None) is not None:
        given["input_size"] = by_hand.size(args.size)
    if getattr(args, "resize", None) is not None:
        given["resize"] = args.resize
    for what in ("mean", "std"):
        if getattr(args, what, None) is not None:
            given[what] = by_hand.numbers(getattr(args, what), channels, what)
    if getattr(args, "class_names", None) is not None:
        given["classes"] = by_hand.read_class_names(args.class_names)
    return net.fed(**given) if given else net


def layer_names(text: str | None) -> list[str] | None:
    """Layer names that stand with commas in one option; None where it is not given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def add_image(parser: argparse.ArgumentParser) -> None:
    """``--image FILE``."""
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture to look at")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """``--precision NAME``, of the steps of a synthesis."""
    words = "of the steps: auto (bfloat16 on CPUs that multiply in it), float32 or bfloat16 (default auto)"
    parser.add_argument("--precision", default="auto", metavar="NAME", help=words)


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
