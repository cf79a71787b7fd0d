"""Whether one architecture fits one view of a checkpoint, and the module with the weights in it where it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.checkpoints import heads
from sp_core.checkpoints.catalogue import Blueprint, blueprint, build, has_auxiliary, skeleton
from sp_core.checkpoints.verdict import Verdict
from sp_core.checkpoints.view import View, first_five
from sp_core.errors import SpError
from sp_core.parameterizations import apply
from sp_core.parameterizations.recognised import Way

# A body may lack this share of its tensors, or have that many too many, and still be called likely.
TOLERANCE = 0.05


def plan_of(name: str, seen: View) -> Blueprint:
    """The blueprint of ``name``, with side classifiers where the checkpoint has them.

    Raises:
        SpError: the architecture cannot be built with its options.
    """
    try:
        return blueprint(name, has_auxiliary(name, seen.shapes))
    except SpError:
        raise
    except Exception as error:  # a constructor raises ValueError, TypeError, ZeroDivisionError … on odd options
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"{name} cannot be built ({reason}); choose other options.") from error


def buildable(names: Iterable[str], seen: View) -> Iterator[Blueprint]:
    """The blueprints of those names that can be built: options read from shapes may be such as no constructor takes."""
    for name in names:
        try:
            yield plan_of(name, seen)
        except SpError:
            continue


def exact(plan: Blueprint, seen: View) -> Verdict | None:
    """The verdict where every tensor fits after the class count and the channels are adapted; else None."""
    if len(seen.shapes) != len(plan.shapes) or seen.shapes.keys() != plan.shapes.keys():
        return None
    differing = {key for key, shape in seen.shapes.items() if shape != plan.shapes[key]}
    channels = heads.input_channels(plan, seen.shapes)
    classes = heads.class_count(plan, seen.shapes)
    if channels is None or classes is None or not differing <= plan.head | {plan.stem}:
        return None
    return Verdict(plan.name, "exact", classes=classes, channels=channels)


def filled(
    verdict: Verdict, plan: Blueprint, tensors: Mapping[str, Tensor], ways: Mapping[str, Way] | None = None
) -> nn.Module:
    """The architecture of ``verdict`` with ``tensors`` as its weights: every one is used, none is missing.

    ``ways``: layer name to the parametrisation of its weight, for those that the architecture itself has not.
    """
    module = skeleton(plan.name, _classes(plan, verdict.classes), has_auxiliary(plan.name, tensors))
    heads.set_input_channels(module, plan, verdict.channels)
    for layer, (name, pairs) in (ways or {}).items():
        options: dict[str, Any] = dict(pairs)
        module = apply(module, name, [layer], **options)
    heads.fill(module, tensors)
    return module


def _classes(plan: Blueprint, classes: int) -> int | None:
    return classes if plan.head and classes != plan.classes else None


def few_differences(plan: Blueprint, seen: View) -> tuple[Verdict, nn.Module] | None:
    """The architecture when nearly all tensors fit; the missing ones keep random values, and that is said."""
    allowed = int(TOLERANCE * len(plan.shapes))
    if not -allowed <= len(seen.shapes) - len(plan.shapes) <= max(allowed, 2) or not plan.head <= seen.shapes.keys():
        return None
    shapes = seen.shapes
    fitting = {key for key, shape in plan.shapes.items() if shapes.get(key) == shape or key in plan.head}
    missing = [key for key in plan.shapes if key not in fitting]
    extra = [key for key in shapes if key not in plan.shapes]
    classes = heads.class_count(plan, shapes)
    if classes is None or len(missing) > allowed or len(extra) > max(allowed, 2):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(plan.name, _classes(plan, classes), has_auxiliary(plan.name, shapes))
    heads.fill(module, {key: value for key, value in seen.tensors.items() if key in fitting or key not in shapes})
    differences = []
    if missing:
        differences.append(f"{len(missing)} weights are missing and random: {first_five(missing)}.")
    if extra:
        differences.append(f"{len(extra)} tensors have no place and were left out: {first_five(extra)}.")
    return Verdict(plan.name, "likely", tuple(differences), classes=classes, channels=plan.channels), module
