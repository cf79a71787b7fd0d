"""``train RECIPE``: train one of the bundled recipes and leave weights and a model card in a folder."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch

from sp_core.training import RECIPES, recipe, train
from sp_core.training.loop import PRECISIONS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``train``."""
    parser.add_argument("recipe", metavar="RECIPE", help="one of: " + ", ".join(RECIPES))
    parser.add_argument("--device", help="cpu or cuda (default: cuda when there is one)")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: bfloat16 on cuda, float32 on the CPU")
    parser.add_argument("--steps", type=int, help="updates (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="seed of the initial weights (default: the recipe's)")
    parser.add_argument("--out", default="runs", metavar="FOLDER", help="where to write (default: runs)")
    parser.add_argument("--resume", action="store_true", help="go on from the last save in FOLDER")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, with one line of progress at a time on standard error; return the model card."""
    chosen = recipe(args.recipe)
    if args.steps is not None:
        chosen = replace(chosen, steps=args.steps)
    if args.seed is not None:
        chosen = replace(chosen, seed=args.seed)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    card: dict[str, Any] = {}
    for progress in train(chosen, args.out, device=device, precision=args.precision, resume=args.resume):
        line = (
            f"{progress.step}/{progress.steps}  loss {progress.loss:.3f}  accuracy {progress.accuracy:.3f}  "
            f"{progress.images_per_second:.0f} images/s"
        )
        if progress.card is not None:
            card = progress.card
            line += f"  held-out {card['held_out_accuracy']:.4f}  (saved, {card['seconds']:.0f} s)"
        print(line, file=sys.stderr, flush=True)
    text = (
        f"{card['name']}: {card['held_out_accuracy']:.2%} of {card['held_out_images']} held-out images, "
        f"{card['parameters']} parameters, {card['steps']} steps in {card['seconds']:.0f} s, in {args.out}"
    )
    return {**card, "folder": str(args.out), "text": text}
