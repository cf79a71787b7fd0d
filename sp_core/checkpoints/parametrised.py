"""Checkpoints of networks whose weights are parametrised: ``conv.parametrizations.weight.original0`` and so on.

The names without these parts say which architectures it may be; an architecture says what shape the weight has; and
that shape and those of the parts say which parametrisation it was. Where two have parts of the same shapes the first
is taken and the verdict is ``likely``: the same numbers make another weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from sp_core.checkpoints.catalogue import Blueprint, candidates
from sp_core.checkpoints.fit import buildable, exact, filled, plan_of
from sp_core.checkpoints.inferred import proposals
from sp_core.checkpoints.named import asked
from sp_core.checkpoints.verdict import Verdict
from sp_core.checkpoints.view import View, first_five, view
from sp_core.errors import SpError
from sp_core.parameterizations.recognised import Way, free_parts, ways

_MOST_CANDIDATES = 60
Found = tuple[Verdict, nn.Module, tuple[str, ...]]


def parametrised(seen: View) -> Found | None:
    """The verdict, the module with the weights in it, and notes; None where no known architecture has such parts."""
    layers, rest = free_parts(seen.shapes)
    if not layers:
        return None
    dense = {**rest, **{f"{layer}.weight": () for layer in layers}}  # no shape is known yet
    names = candidates(dense)
    for some in (names if len(names) <= _MOST_CANDIDATES else [], proposals(dense)):
        fits = [found for plan in buildable(some, seen) if (found := as_plan(plan, seen)) is not None]
        if fits:
            verdict, module, notes = fits[0]
            return replace(verdict, also=tuple(other.architecture for other, _, _ in fits[1:])), module, notes
    return None


def as_plan(plan: Blueprint, seen: View) -> Found | None:
    """The same for one architecture; None where what is not parametrised does not fit, or the parts fit no weight."""
    layers, rest = free_parts(seen.shapes)
    weights = {f"{layer}.weight" for layer in layers}
    if not layers or not weights <= plan.shapes.keys():
        return None
    shapes = {name: shape for name, shape in plan.shapes.items() if name not in weights}
    bare = replace(plan, shapes=shapes, stem=plan.stem if plan.stem in shapes else "")
    verdict = exact(bare, view({name: seen.tensors[name] for name in rest}))
    own = {layer: ways(plan.shapes[f"{layer}.weight"], parts) for layer, parts in layers.items()}
    return None if verdict is None or not all(own.values()) else _made(verdict, plan, seen, own)


def _made(verdict: Verdict, plan: Blueprint, seen: View, own: Mapping[str, tuple[Way, ...]]) -> Found | None:
    """The module with the first parametrisation that every layer could have, else of each layer its first."""
    every = [name for name, _ in next(iter(own.values())) if all(name in dict(rows) for rows in own.values())]
    chosen = {layer: next(row for row in rows if row[0] in every[:1] or not every) for layer, rows in own.items()}
    taken = list(dict.fromkeys(name for name, _ in chosen.values()))
    others = every[1:] or [row[0] for rows in own.values() for row in rows[1:] if not every]
    if others:
        verdict = replace(verdict, confidence="likely", differences=(_doubt(plan, taken, list(dict.fromkeys(others))),))
    ours = _named(plan, taken[0]) if len(taken) == 1 else ""
    if ours and (same := exact(again := plan_of(ours, seen), seen)) is not None:
        verdict = replace(verdict, architecture=ours, classes=same.classes, channels=same.channels)
        return verdict, filled(verdict, again, seen.tensors), seen.notes
    try:
        module = filled(verdict, plan, seen.tensors, chosen)
    except SpError:  # a weight of such a shape that is no convolution's and no linear layer's
        return None
    note = f"{len(own)} weights of {plan.name} are parametrised ({', '.join(taken)}): {first_five(own)}."
    return replace(verdict, changed=True), module, (*seen.notes, note)


def _doubt(plan: Blueprint, taken: list[str], others: list[str]) -> str:
    ours = _named(plan, others[0])
    hint = f'architecture="{ours}" takes another.' if ours else "Only whoever saved the file knows which one it is."
    return (
        f"The free numbers of {' and '.join([*taken, *others])} have the same shapes and make other weights; "
        f"{' and '.join(taken)} was taken. {hint}"
    )


def _named(plan: Blueprint, symmetry: str) -> str:
    """The architecture with that symmetry where it is an option of it, else ""."""
    try:
        return asked(plan.name, {"symmetry": symmetry}).name
    except SpError:
        return ""
