"""Which architecture a checkpoint is, from the names and shapes of its tensors; the file's own word is not asked.

``exact`` means a strict load of every tensor after two adaptations that the shapes themselves dictate: the number of
classes and the number of input channels. ``likely`` means that the body fits and the rest was guessed; what differs is
listed. ``weights-only`` means that nothing known fits: the weights can be looked at, and nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sp_core.checkpoints import heads, timm_names
from sp_core.checkpoints.catalogue import Blueprint, candidates
from sp_core.checkpoints.consult import Found, as_asked
from sp_core.checkpoints.fit import buildable, exact, few_differences, filled, plan_of
from sp_core.checkpoints.inferred import proposals
from sp_core.checkpoints.loose import image_channels, loose
from sp_core.checkpoints.named import Options
from sp_core.checkpoints.names import bare
from sp_core.checkpoints.parametrised import as_plan, parametrised
from sp_core.checkpoints.read import Checkpoint
from sp_core.checkpoints.verdict import Verdict
from sp_core.checkpoints.view import View, view, views
from sp_core.errors import SpError

# More than any network that has a name holds; a file beyond it is not compared with anything.
_MOST_TENSORS = 12_000
_MOST_CANDIDATES = 60


def identify(
    checkpoint: Checkpoint, hint: str | None = None, *, architecture: str = "", options: Options | None = None
) -> Found:
    """The verdict, the module with the weights in it, and notes on tensors that were left out.

    ``hint`` is tried first; where it fits exactly, nothing else is. ``architecture`` is what a person says it is, and
    then nothing else is tried: see :func:`~sp_core.checkpoints.consult.as_asked`, and for ``options``
    :func:`~sp_core.checkpoints.named.asked`.

    Where no known architecture has these names and shapes, the module is a :class:`~sp_core.checkpoints.loose.Loose`
    one, which cannot be run.

    Raises:
        SpError: there is no weight matrix among the tensors, or they are not of ``architecture``.
    """
    if architecture:
        return as_asked(checkpoint, architecture, options)
    if hint is not None:
        seen = view(checkpoint.tensors)
        for plan in buildable([hint], seen):
            if (sure := _exactly([plan], seen) or as_plan(plan, seen)) is not None:
                return sure
    under = views(checkpoint.tensors) if len(checkpoint.tensors) <= _MOST_TENSORS else []
    for seen in under:
        if (sure := _exactly([plan_of(name, seen) for name in _known(seen)], seen)) is not None:
            return sure
    for seen in under:
        if (sure := _exactly(_other_sizes(seen), seen)) is not None:
            return sure
    for seen in under:
        if (written := parametrised(seen)) is not None:
            return written
    of_timm = [(match, seen) for seen in under for match in timm_names.matches(seen.shapes)]
    for match, seen in of_timm:
        if match.classes and (found := _timm(match, seen)) is not None:
            return found
    for seen in under:
        for guess in (heads.small_stem, heads.other_head):
            for plan in _plans(seen):
                if (guessed := guess(plan, seen)) is not None:
                    return *guessed, seen.notes
    for match, seen in of_timm:  # without a head: torchvision's body has been tried before
        if (found := _timm(match, seen)) is not None:
            return found
    if not of_timm:  # a name that fits, of a library that is not here, says more than one that nearly fits
        for seen in under:
            for plan in _plans(seen):
                if (guessed := few_differences(plan, seen)) is not None:
                    return *guessed, seen.notes
    return _weights_only(checkpoint, of_timm[0][0].name if of_timm else "")


def _plans(seen: View) -> Iterator[Blueprint]:
    for name in _known(seen):
        yield plan_of(name, seen)
    yield from _other_sizes(seen)


def _known(seen: View) -> list[str]:
    """The candidates; none where the names are those of dozens of networks at once, as in a file made to be slow."""
    names = candidates(seen.shapes)
    return names if len(names) <= _MOST_CANDIDATES else []


def _other_sizes(seen: View) -> Iterator[Blueprint]:
    yield from buildable(proposals(seen.shapes), seen)


def _exactly(plans: Iterable[Blueprint], seen: View) -> Found | None:
    fits = [(fit, plan) for plan in plans if (fit := exact(plan, seen)) is not None]
    if not fits:
        return None
    # Only a network made for that many channels needs no adapting: it is the likelier of two that fit.
    fits.sort(key=lambda pair: pair[0].channels != pair[1].channels)
    first, plan = fits[0]
    also = tuple(fit.architecture for fit, _ in fits[1:])
    verdict = replace(first, also=also)
    return verdict, filled(verdict, plan, seen.tensors), (*seen.notes, *_namesakes(verdict.architecture, seen))


def _namesakes(architecture: str, seen: View) -> tuple[str, ...]:
    """A note where architectures of timm have torchvision's names and shapes but compute something else."""
    kind, _, short = architecture.partition(":")
    if kind != "torchvision":
        return ()
    groups = [group for match in timm_names.matches(seen.shapes) for group in match.row.alike]
    others = [f"timm:{name}" for group in groups if short not in group for name in group]
    if not others or len(groups) < 2:
        return ()
    return (
        f"{' and '.join(others)} have the same names and shapes but compute something else (they blur before they "
        f"subsample); {architecture}, by far the commoner, was taken.",
    )


def _timm(match: timm_names.Match, seen: View) -> Found | None:
    if not timm_names.installed():
        return None
    for position, (name, *twins) in enumerate(match.row.alike):
        module = timm_names.filled(name, match.classes, match.channels, seen)
        if module is None:
            continue
        also = tuple(f"timm:{twin}" for twin in twins)
        others = [f"timm:{other}" for group in match.row.alike[position + 1 :] for other in group]
        if not others:
            verdict = Verdict(f"timm:{name}", "exact", (), also, match.classes, match.channels)
            return verdict, module, seen.notes
        said = (
            f"{' and '.join(others)} have the same names and shapes but compute something else (padding, activation, "
            f"blurring or a constant); timm:{name} was taken. Only whoever saved the file knows which one it is."
        )
        return Verdict(f"timm:{name}", "likely", (said,), also, match.classes, match.channels), module, seen.notes
    return None


def _weights_only(checkpoint: Checkpoint, of_timm: str) -> Found:
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
    if of_timm and not timm_names.installed():
        why = (
            f"This looks like timm's {of_timm}, and timm is not installed here: pip install timm. "
            "Until then only the weights can be looked at."
        )
    channels = image_channels(tensors) or 3
    return Verdict("", "weights-only", (why,), channels=channels), loose(tensors, checkpoint.filename), ()
