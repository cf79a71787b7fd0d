"""Which architecture a checkpoint is, from the names and shapes of its tensors; the file's own word is not asked.

``exact`` means a strict load of every tensor after two adaptations that the shapes themselves dictate: the number of
classes and the number of input channels. ``likely`` means that the body fits and the rest was guessed; what differs is
listed. ``weights-only`` means that nothing known fits: the weights can be looked at, and nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sp_core.checkpoints import heads
from sp_core.checkpoints.catalogue import (
    Blueprint,
    blueprint,
    build,
    candidates,
    has_auxiliary,
    skeleton,
)
from sp_core.checkpoints.loose import image_channels, loose
from sp_core.checkpoints.names import bare, variants
from sp_core.checkpoints.read import Checkpoint
from sp_core.checkpoints.verdict import Verdict
from sp_core.errors import SpError

# A body may lack this share of its tensors, or have that many too many, and still be called likely.
_TOLERANCE = 0.05


def identify(checkpoint: Checkpoint, hint: str | None = None) -> tuple[Verdict, nn.Module, tuple[str, ...]]:
    """The verdict, the module with the weights in it, and notes on tensors that were left out.

    ``hint`` is tried first; where it fits exactly, nothing else is.

    Where no known architecture has these names and shapes, the module is a :class:`~sp_core.checkpoints.loose.Loose`
    one, which cannot be run.

    Raises:
        SpError: there is no weight matrix among the tensors.
    """
    if hint is not None and (sure := _exact(hint, checkpoint.tensors)) is not None:
        return sure, _filled(sure, checkpoint.tensors), ()
    under = list(variants(checkpoint.tensors))
    for tensors, note in under:
        fits = [fit for name in candidates(tensors) if (fit := _exact(name, tensors)) is not None]
        if fits:
            # Only a network made for that many channels needs no adapting: it is the likelier of two that fit.
            fits.sort(key=lambda fit: fit.channels != _plan(fit.architecture, tensors).channels)
            first, also = fits[0], tuple(fit.architecture for fit in fits[1:])
            verdict = Verdict(first.architecture, "exact", (), also, first.classes, first.channels)
            return verdict, _filled(verdict, tensors), (note,) if note else ()
    for tensors, note in under:
        for guess in (heads.small_stem, heads.other_head, _few_differences):
            for name in candidates(tensors):
                found = guess(_plan(name, tensors), tensors)
                if found is not None:
                    return found[0], found[1], (note,) if note else ()
    return _weights_only(checkpoint)


def _weights_only(checkpoint: Checkpoint) -> tuple[Verdict, nn.Module, tuple[str, ...]]:
    """The weights by their names, for the questions that need no forward pass."""
    tensors = bare(checkpoint.tensors)
    if not any(tensor.ndim > 1 and tensor.is_floating_point() for tensor in tensors.values()):
        raise SpError(
            f"{checkpoint.filename} holds {checkpoint.summary()}: no weight matrix, so there is nothing to look at; "
            "save the weights with torch.save(model.state_dict(), 'weights.pth')."
        )
    why = (
        f"No architecture is known that has these names and shapes: {checkpoint.summary()}. "
        "Only the weights can be looked at."
    )
    channels = image_channels(tensors) or 3
    return Verdict("", "weights-only", (why,), channels=channels), loose(tensors, checkpoint.filename), ()


def _plan(name: str, tensors: Mapping[str, Tensor]) -> Blueprint:
    return blueprint(name, has_auxiliary(name, tensors))


def _exact(name: str, tensors: Mapping[str, Tensor]) -> Verdict | None:
    plan = _plan(name, tensors)
    shapes = heads.shapes(tensors)
    if shapes.keys() != plan.shapes.keys():
        return None
    differing = {key for key, shape in shapes.items() if shape != plan.shapes[key]}
    channels = heads.input_channels(plan, shapes)
    classes = heads.class_count(plan, shapes)
    if channels is None or classes is None or not differing <= plan.head | {plan.stem}:
        return None
    return Verdict(plan.name, "exact", classes=classes, channels=channels)


def _filled(verdict: Verdict, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The architecture of ``verdict`` with ``tensors`` as its weights: every one is used, none is missing."""
    name = verdict.architecture
    plan = _plan(name, tensors)
    module = skeleton(name, _classes(plan, verdict.classes), has_auxiliary(name, tensors))
    heads.set_input_channels(module, plan, verdict.channels)
    heads.fill(module, tensors)
    return module


def _classes(plan: Blueprint, classes: int) -> int | None:
    return classes if plan.head and classes != plan.classes else None


def _few_differences(plan: Blueprint, tensors: Mapping[str, Tensor]) -> tuple[Verdict, nn.Module] | None:
    """The architecture when nearly all tensors fit; the missing ones keep random values, and that is said."""
    shapes = heads.shapes(tensors)
    fitting = [
        key for key, shape in plan.shapes.items() if shapes.get(key) == shape or key in plan.head & shapes.keys()
    ]
    missing = [key for key in plan.shapes if key not in fitting]
    extra = [key for key in shapes if key not in plan.shapes]
    allowed = int(_TOLERANCE * len(plan.shapes))
    classes = heads.class_count(plan, shapes)
    if classes is None or len(missing) > allowed or len(extra) > max(allowed, 2) or not plan.head <= shapes.keys():
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(plan.name, _classes(plan, classes), has_auxiliary(plan.name, tensors))
    heads.fill(module, {key: value for key, value in tensors.items() if key not in missing and key in plan.shapes})
    differences = []
    if missing:
        differences.append(f"{len(missing)} weights are missing and random: {_first_five(missing)}.")
    if extra:
        differences.append(f"{len(extra)} tensors have no place and were left out: {_first_five(extra)}.")
    return Verdict(plan.name, "likely", tuple(differences), classes=classes, channels=plan.channels), module


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
