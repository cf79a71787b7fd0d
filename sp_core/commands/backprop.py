"""``backprop``: the gradient, the deconvnet or guided backprop of a class or a unit, as a picture and as numbers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sp_core.commands import options

if TYPE_CHECKING:
    from torch import Tensor

    from sp_core.network import Network, Unit


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, the image, the target, the rule and the view."""
    options.add_source(parser)
    options.add_image(parser)
    add_target(parser)
    parser.add_argument(
        "--rule", default="guided", choices=("gradient", "deconvnet", "guided", "all"), help="default guided"
    )
    add_view(parser)
    options.add_output(parser, "backprop.png")


def add_target(parser: argparse.ArgumentParser) -> None:
    """``--target``."""
    parser.add_argument(
        "--target",
        default=None,
        metavar="TARGET",
        help="a class number or name, or a unit layer:channel[@y,x]; by default the predicted class",
    )


def add_view(parser: argparse.ArgumentParser) -> None:
    """``--view``."""
    parser.add_argument(
        "--view",
        default="signed",
        choices=("signed", "rgb", "absolute"),
        help="colours of the picture (default signed)",
    )


def target_of(net: Network, seen: Tensor, text: str | None) -> int | Unit:
    """The target that ``--target`` names, or the predicted class."""
    from sp_core.errors import SpError
    from sp_core.network import predict
    from sp_core.targets import parse_target

    if text is not None:
        return parse_target(net, text)
    if not net.class_count:
        _ = net.layers  # where only the weights are known, the sentence says that
        raise SpError(f"{net.name} has no class scores to choose the predicted class by; give --target layer:channel.")
    return int(predict(net, seen)[0].argmax())


def prediction(net: Network, seen: Tensor) -> dict[str, Any] | None:
    """The predicted class, its name and probability; None for a network without class scores."""
    from sp_core.network import predict

    if not net.class_count:
        return None
    chances = predict(net, seen)[0].float().softmax(0).cpu()
    best = int(chances.argmax())
    return {"class": best, "name": net.class_name(best), "probability": float(chances[best])}


def facts(values: Tensor) -> dict[str, Any]:
    """Shape, extremes and share of exact zeros of a map."""
    return {
        "shape": list(values.shape),
        "min": float(values.min()),
        "max": float(values.max()),
        "mean_abs": float(values.abs().mean()),
        "zeros": float((values == 0).float().mean()),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the picture; return what was sent back, by rule."""
    from sp_core.figures import maps
    from sp_core.images import open_image
    from sp_core.rules import RULES, compare_backprop

    net = options.load(args)
    seen = net.view(open_image(args.image))[None]
    target = target_of(net, seen, args.target)
    rules = RULES if args.rule == "all" else (args.rule,)
    found = compare_backprop(net, seen, target, rules)
    signals = {rule: found[rule].gradient[0].cpu().numpy() for rule in rules}
    scales = maps.scales(signals, args.view)
    pictures = [maps.picture(signals[rule], args.view, scales[rule]) for rule in rules]
    path = options.write_picture(maps.side_by_side(pictures), args.out)
    first = found[rules[0]]
    rows = [
        {"rule": rule, **facts(answer.gradient), "limit": scales[rule].limit, "notes": list(answer.notes)}
        for rule, answer in found.items()
    ]
    lines = [f"{row['rule']:10} {row['min']:.4g} to {row['max']:.4g}" for row in rows]
    notes = [note for answer in found.values() for note in answer.notes]
    return {
        "network": net.name,
        "fingerprint": net.fingerprint,
        "target": first.targets[0],
        "value": float(first.values[0]),
        "prediction": prediction(net, seen),
        "rectifiers": first.rectifiers,
        "untouched": dict(first.untouched),
        "view": args.view,
        **({key: value for key, value in rows[0].items() if key != "notes"} if len(rows) == 1 else {}),
        "rules": rows,
        "notes": notes,
        "picture": path,
        "text": "\n".join(
            [f"{first.targets[0]} = {float(first.values[0]):.4g}, {first.rectifiers} rectifiers", *lines, *notes, path]
        ),
    }
