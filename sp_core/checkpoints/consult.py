"""Loading a checkpoint as the architecture that a person names, or saying why that cannot be."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from sp_core.checkpoints import heads, timm_names
from sp_core.checkpoints.catalogue import Blueprint
from sp_core.checkpoints.diff import closest
from sp_core.checkpoints.fit import exact, few_differences, filled, plan_of
from sp_core.checkpoints.named import Asked, Options, asked
from sp_core.checkpoints.parametrised import as_plan
from sp_core.checkpoints.read import Checkpoint
from sp_core.checkpoints.verdict import Verdict
from sp_core.checkpoints.view import View, views
from sp_core.errors import SpError

Found = tuple[Verdict, nn.Module, tuple[str, ...]]


def as_asked(checkpoint: Checkpoint, architecture: str, options: Options | None = None) -> Found:
    """The verdict, the module and notes, for ``architecture`` and no other.

    ``exact`` where everything fits after the class count and the channels are adapted; ``likely`` where nearly
    everything does, or with another head or stem, and what differs is listed.

    Raises:
        SpError: too little fits, and the sentence says how much; or there is no such architecture or option.
    """
    wanted = asked(architecture, options)
    under = [(seen, plan_of(wanted.name, seen)) for seen in views(checkpoint.tensors)]
    for seen, plan in under:
        found = _of_timm(wanted, seen) or _exactly(plan, seen)
        if found is not None and not wanted.small and _agrees(found[0], wanted):
            return *found, seen.notes
        own = as_plan(plan, seen)
        if own is not None and not wanted.small and _agrees(own[0], wanted):
            return own
    guesses = [] if wanted.small is False else [heads.small_stem]
    for guess in [*guesses, *([] if wanted.small else [heads.other_head, few_differences])]:
        for seen, plan in under:
            found = guess(plan, seen)
            if found is not None and _agrees(found[0], wanted):
                verdict = replace(found[0], confidence="exact", differences=()) if wanted.small else found[0]
                return verdict, found[1], seen.notes
    raise SpError(
        f"{checkpoint.filename} is not {wanted.name}: {closest(checkpoint.tensors, wanted).text} "
        "Name another architecture, or none to see the weights alone."
    )


def _exactly(plan: Blueprint, seen: View) -> tuple[Verdict, nn.Module] | None:
    verdict = exact(plan, seen)
    return None if verdict is None else (verdict, filled(verdict, plan, seen.tensors))


def _of_timm(wanted: Asked, seen: View) -> tuple[Verdict, nn.Module] | None:
    """Where the table knows the name: timm itself then adapts the stem, which may be more than one convolution."""
    kind, _, short = wanted.name.partition(":")
    for match in timm_names.matches(seen.shapes) if kind == "timm" else ():
        if any(short in group for group in match.row.alike):
            module = timm_names.filled(short, match.classes, match.channels, seen)
            if module is not None:
                return Verdict(wanted.name, "exact", classes=match.classes, channels=match.channels), module
    return None


def _agrees(verdict: Verdict, wanted: Asked) -> bool:
    return wanted.classes in {None, verdict.classes} and wanted.channels in {None, verdict.channels}
