"""``attribute``: an attribution map of an image, its numbers, and whether it can be trusted."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from sp_core.commands import options
from sp_core.commands.backprop import add_target, add_view, facts, prediction, target_of

METHODS = (  # the keys of sp_core.methods.METHODS; a test compares them (importing it here would load torch)
    *("integrated_gradients", "deep_lift", "smoothgrad", "grad_cam", "guided_grad_cam", "occlusion", "lrp"),
    *("gradient", "deconvnet", "guided"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """``SOURCE``, the image, the target, the method and its settings."""
    options.add_source(parser)
    options.add_image(parser)
    add_target(parser)
    parser.add_argument("--method", default=METHODS[0], choices=METHODS, help="default integrated_gradients")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method, such as steps=128"
    )
    parser.add_argument("--test", action="store_true", help="also insertion, deletion and randomised weights")
    parser.add_argument("--captum", action="store_true", help="also captum's own, with how it agrees")
    parser.add_argument("--seed", type=int, default=0, help="of the tests (default 0)")
    add_view(parser)
    options.add_output(parser, "attribution.png")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the picture; return the map's numbers and, with ``--test``, its tests."""
    from sp_core.attribution import attribution_steps
    from sp_core.figures import maps
    from sp_core.images import open_image

    net = options.load(args)
    seen = net.view(open_image(args.image))[None]
    target = target_of(net, seen, args.target)
    steps = attribution_steps(net, seen, target, args.method, **_settings(args.set))
    found = options.progress(steps, 100, args.method, lambda step: round(100 * step.done / step.total)).answer
    assert found is not None
    path = options.write_picture(maps.picture(found.map[0].cpu().numpy(), args.view), args.out)
    answer: dict[str, Any] = {
        "network": net.name,
        "fingerprint": net.fingerprint,
        "method": args.method,
        "settings": dict(found.settings),
        "target": found.targets[0],
        "value": float(found.values[0]),
        "prediction": prediction(net, seen),
        **facts(found.map),
        "sum": float(found.map.sum()),
        "expected_sum": None if found.expected is None else float(found.expected[0]),
        "completeness_gap": None if found.gap is None else float(found.gap[0]),
        "notes": list(found.notes),
        "picture": path,
    }
    lines = [f"{args.method} of {found.targets[0]}: {answer['min']:.4g} to {answer['max']:.4g}"]
    if found.gap is not None:
        lines.append(f"adds up to {answer['sum']:.4g} where {answer['expected_sum']:.4g} is expected")
    if args.captum:
        answer["captum"] = _captum(net, seen, target, found)
        lines += [answer["captum"]["sentence"], *answer["captum"]["notes"]]
    if args.test:
        answer["test"] = _test(net, seen, target, found, args.seed)
        lines += [f"{name} {value}" for name, value in answer["test"].items()]
    return {**answer, "text": "\n".join([*lines, *found.notes, path])}


def _settings(pairs: list[str]) -> dict[str, Any]:
    from sp_core.errors import SpError

    found = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise SpError(f"A setting is written NAME=VALUE, such as steps=128; got '{pair}'.")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def _captum(net: Any, seen: Any, target: Any, found: Any) -> dict[str, Any]:
    from sp_core.second_opinion import agreement, captums, sentence

    theirs = captums(net, seen, target, found.method, **dict(found.settings))
    answer: dict[str, Any] = {
        "name": theirs.name,
        "raised": theirs.raised,
        "expected_sum": theirs.expected,
        "completeness_gap": theirs.gap,
        "from_gradient": theirs.from_gradient,
        "sentence": sentence(theirs, found),
        "notes": list(theirs.notes),
    }
    if theirs.map is None:
        return answer
    agreed = agreement(theirs.map, found.map)
    return {
        **answer,
        **facts(theirs.map),
        "correlation": agreed.correlation,
        "difference": agreed.difference,
        "same": agreed.same,
    }


def _test(net: Any, seen: Any, target: Any, found: Any, seed: int) -> dict[str, Any]:
    from sp_core.attribution import importance
    from sp_core.faithfulness import insertion_deletion_steps, randomisation

    steps = insertion_deletion_steps(net, seen, target, importance(found)[0], seed=seed)
    curves = options.progress(steps, 100, "test", lambda step: round(100 * step.done / step.total)).curves
    assert curves is not None
    return {
        "insertion": curves.insertion_score,
        "insertion_random": curves.random_insertion_score,
        "deletion": curves.deletion_score,
        "deletion_random": curves.random_deletion_score,
        "correlation_last_shuffled": randomisation(net, seen, target, found, "last", seed).correlation,
        "correlation_all_shuffled": randomisation(net, seen, target, found, "all", seed).correlation,
    }
