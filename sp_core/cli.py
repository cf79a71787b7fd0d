"""The command line: ``python -m sp_core VERB SOURCE [...]``.

A verb is a module of :mod:`sp_core.commands` with two functions: ``arguments(parser)`` declares its options and
``run(args)`` does the work and returns the answer as a dictionary of plain values, whose key ``"text"`` (if any) is
what a person reads. With ``--json`` the answer without ``"text"`` is the only thing on standard output.
Progress and messages go to standard error. A mistake of the person's is one line there, and exit status 2.
Only the module of the verb that is called is imported, so ``train`` runs where plotly and streamlit are missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from sp_core.allocator import keep_maps
from sp_core.errors import SpError

VERBS = {
    "models": "list the names that can be loaded",
    "architectures": "the architectures that can be made: what each is and costs; of one its layers",
    "describe": "say what a checkpoint is: architecture, layers, counts, receptive fields",
    "compare": "what changed from one checkpoint to another, layer by layer",
    "predict": "the most likely classes of images",
    "filters": "picture of a convolution's filters",
    "backprop": "gradient, deconvnet or guided backprop of an image",
    "attribute": "an attribution map of an image",
    "ascend": "an image that drives a unit, by gradient ascent",
    "dream": "DeepDream on an image",
    "index": "find the maximally activating patches of every unit of a dataset",
    "top": "the patches that drive a unit most, from an index",
    "neighbours": "the images of a dataset nearest to a picture, in pixels and in the features of layers",
    "receptive-fields": "size, stride and position of every layer's receptive field",
    "complexity": "parameters and multiply-accumulates, layer by layer",
    "singular-values": "the spectrum of every weight matrix",
    "compress": "layers in small layers within a budget, as a file that loads back",
    "epochs": "the checkpoints of a training run in a folder: how its weights moved",
    "train": "train one of the bundled recipes",
    "train-table": "train every row of one of the lectures' comparisons on CIFAR-10",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, like every other complaint here."""

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(2)


def _parser(verb: str) -> tuple[_Parser, Any]:
    module = importlib.import_module("sp_core.commands." + verb.replace("-", "_"))
    parser = _Parser(prog=f"python -m sp_core {verb}", description=VERBS[verb])
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    module.arguments(parser)
    return parser, module


def _plain(value: Any) -> Any:
    """Make ``value`` strict JSON: tuples become lists, and what JSON cannot say (NaN, infinity) becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _one_line(text: str) -> str:
    """A message on one line; lines of code in it, which are set in, are divided by semicolons."""
    return " ".join(re.sub(r"(\n    .*)(?=\n    )", r"\1;", text).split())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status (0 done, 2 the person's mistake, 130 stopped by Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print("usage: python -m sp_core VERB SOURCE [...]\n")
        print("\n".join(f"  {verb:18} {line}" for verb, line in VERBS.items()))
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        print(f"'{verb}' is not a verb; it must be one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    keep_maps()
    parser, module = _parser(verb)
    args = parser.parse_args(arguments[1:])
    try:
        answer = module.run(args)
    except SpError as error:
        print(_one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    for note in getattr(args, "notes", ()):
        print(f"note: {note}", file=sys.stderr)
    text = answer.pop("text", None)
    if args.json:
        print(json.dumps(_plain(answer), ensure_ascii=False, allow_nan=False))
    elif text is not None:
        print(text)
    return 0
