"""``predict``: the most likely classes of images."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands import options
from sp_core.errors import SpError


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, how it is fed, images, ``--top`` and ``--class``."""
    options.add_source(parser)
    options.add_feeding(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="another image file")
    parser.add_argument("--top", type=int, default=5, help="how many classes to list (default 5)")
    parser.add_argument(
        "--class",
        dest="classes",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="also list this class's score",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """``images``: for each, ``file`` and ``top``: a list of ``class``, ``name``, ``probability``, ``logit``."""
    from sp_core.images import open_image
    from sp_core.network import predict

    if args.top < 1:
        raise SpError(f"--top must be at least 1; got {args.top}.")
    net = options.load(args)
    _ = net.layers  # where only the weights are known, or the input does not fit, the sentence says that
    if net.class_count == 0:
        raise SpError(f"{net.name} has no class scores: its output is not a vector of logits.")
    paths = [*args.images, *args.image]
    if not paths:
        raise SpError("There is no image to look at; name one or more image files.")
    asked = [net.check_class(index) for index in args.classes]
    answer: list[dict[str, Any]] = []
    for path in paths:  # one at a time: any number of images in the memory of one
        scores = predict(net, net.view(open_image(path))[None])[0].float().cpu()
        if not bool(scores.isfinite().all()):
            raise SpError(
                f"{net.name} gives NaN or infinity for {path}; its weights are broken or its input size is wrong."
            )
        shares = scores.softmax(0)
        best = shares.argsort(descending=True)[: args.top].tolist()
        rows = [
            {
                "class": index,
                "name": net.class_name(index),
                "probability": float(shares[index]),
                "logit": float(scores[index]),
            }
            for index in [*best, *(index for index in asked if index not in best)]
        ]
        answer.append({"file": str(path), "top": rows})
    lines: list[str] = []
    for entry in answer:
        lines.append(entry["file"])
        lines += [f"  {row['probability']:8.4f}  {row['class']:5}  {row['name']}" for row in entry["top"]]
    return {"network": net.name, "fingerprint": net.fingerprint, "images": answer, "text": "\n".join(lines)}
