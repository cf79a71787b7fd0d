"""How an identified network is fed: input size, normalisation, class names, and which of these are guesses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sp_core import zoo
from sp_core.checkpoints import timm_names
from sp_core.checkpoints.expression import parsed
from sp_core.checkpoints.verdict import Verdict
from sp_core.errors import SpError
from sp_core.network import IMAGENET_MEAN, IMAGENET_STD

MAX_CARD_BYTES = 2**20


@dataclass(frozen=True)
class Feeding:
    """What :class:`sp_core.Network` must know beside the module.

    Attributes:
        input_size: ``(channels, height, width)``.
        mean, std: per channel, of images in [0, 1]; None when the network takes [0, 1] as it is.
        classes: names in index order, or None.
        resize: the shorter side before the centre crop, None for the usual one.
        warnings: what a person should know of it, the guesses among them.
        guesses: what was guessed: ``"size"``, ``"normalisation"``, to the sentence with the reason.
    """

    input_size: tuple[int, int, int]
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: tuple[str, ...] | None = None
    resize: int | None = None
    warnings: tuple[str, ...] = ()
    guesses: Mapping[str, str] = field(default_factory=dict)

    def guessing(self, **guesses: str) -> Feeding:
        """The same, with these guesses, which are also warnings."""
        return replace(self, guesses=guesses, warnings=tuple(dict.fromkeys((*self.warnings, *guesses.values()))))


def of_weights(weights: Any) -> Feeding:
    """The feeding that torchvision's ``weights`` were evaluated with: their own transforms and class names."""
    recipe = weights.transforms()
    size = int(recipe.crop_size[0])
    said: tuple[str, ...] = ()
    mode = getattr(recipe.interpolation, "value", "bilinear")
    if mode != "bilinear":
        said = (f"{weights} was evaluated with {mode} resizing; here it is bilinear, which may cost 0.1 % accuracy.",)
    names = tuple(weights.meta.get("categories", ())) or None
    resize = int(recipe.resize_size[0])
    return Feeding((3, size, size), tuple(recipe.mean), tuple(recipe.std), names, resize, said)


def of_verdict(verdict: Verdict) -> Feeding:
    """The feeding of a checkpoint of which only the architecture is known; what is a guess is said."""
    if not verdict.architecture:
        return Feeding((verdict.channels, 224, 224))  # never used: without a graph nothing is fed
    base, options = parsed(verdict.architecture)
    kind, _, short = base.partition(":")
    if kind == "zoo":
        fed = of_zoo(short, options)
    else:
        fed = _of_timm(short, verdict) if kind == "timm" else _of_torchvision(short, verdict)
    return _with_channels(_with_classes(fed, verdict.classes), verdict.channels)


def of_zoo(short: str, options: Mapping[str, Any] | None = None) -> Feeding:
    """The feeding of an architecture of the zoo; of its options ``inputs`` is the number of channels."""
    entry = zoo.entry(short)
    size = ((options or {}).get("inputs", entry.input_size[0]), *entry.input_size[1:])
    said = (entry.caveat,) if entry.caveat else ()
    # A caveat that is about mean and std alone is no longer true once a person has given them.
    guesses = {"normalisation": entry.caveat} if entry.caveat.startswith("Mean and std") else {}
    if not guesses and "mean and std" in entry.caveat:
        guesses = {"normalisation": "guessed, see the notes"}
    names = tuple(entry.classes) or None
    return Feeding(size, entry.mean or None, entry.std or None, names, None, said, guesses)


def _of_torchvision(short: str, verdict: Verdict) -> Feeding:
    from torchvision import models

    options = models.get_model_weights(short)
    # The first weights are the ones in the papers; the file does not say which ones it holds.
    usual = of_weights(next(iter(options), None) or options.DEFAULT)
    if verdict.classes == 1000 and not verdict.small:
        why = f"what torchvision's {short} uses on ImageNet."
        return replace(usual, warnings=()).guessing(
            size=f"Input size {usual.input_size[1]} is guessed: {why}",
            normalisation=f"Mean and std are guessed: {why}",
        )
    size = 32 if verdict.small else usual.input_size[1]
    why = "the file does not say how it was trained."
    return Feeding((3, size, size), IMAGENET_MEAN, IMAGENET_STD).guessing(
        size=f"Input size {size} is guessed: {why}",
        normalisation=f"Mean and std are guessed, those of ImageNet: {why}",
    )


def _of_timm(short: str, verdict: Verdict) -> Feeding:
    facts = timm_names.facts(short)
    size: tuple[int, int, int] = tuple(facts.get("input_size") or (3, 224, 224))  # type: ignore[assignment]
    mean, std = tuple(facts.get("mean") or IMAGENET_MEAN), tuple(facts.get("std") or IMAGENET_STD)
    resize = round(min(size[1:]) / float(facts.get("crop_pct") or 0.875))
    mode = facts.get("interpolation") or "bilinear"
    said = () if mode == "bilinear" else (f"timm resizes images for {short} with {mode} filters; here it is bilinear.",)
    why = f"what timm's {short} uses for its own weights; the file does not say."
    return Feeding(size, mean, std, _imagenet_classes() if verdict.classes == 1000 else None, resize, said).guessing(
        size=f"Input size {size[1]} is guessed: {why}", normalisation=f"Mean and std are guessed: {why}"
    )


def _imagenet_classes() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])


def _with_classes(fed: Feeding, classes: int) -> Feeding:
    if fed.classes is None or len(fed.classes) == classes:
        return fed
    return replace(fed, classes=None)


def _with_channels(fed: Feeding, channels: int) -> Feeding:
    if channels == fed.input_size[0]:
        return fed
    said = f"It takes {channels} channels, whose normalisation is unknown: values in [0, 1] are given as they are."
    size = (channels, *fed.input_size[1:])
    kept = tuple(warning for warning in fed.warnings if warning != fed.guesses.get("normalisation"))
    same = replace(fed, input_size=size, mean=None, std=None, warnings=kept)
    return same.guessing(**{**fed.guesses, "normalisation": said})


def with_card(fed: Feeding, card: Mapping[str, Any], classes: int) -> Feeding:
    """``fed`` with what a model card says, where it fits the network; a card that does not fit is an SpError.

    >>> with_card(Feeding((3, 8, 8)), {"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "classes": ["a", "b"]}, 2).classes
    ('a', 'b')
    """
    try:
        size = tuple(int(side) for side in card.get("input_size", fed.input_size))
        mean = [float(value) for value in card["mean"]] if card.get("mean") else None
        std = [float(value) for value in card["std"]] if card.get("std") else None
        names = tuple(str(name)[:200] for name in card.get("classes") or ()) or None
    except (TypeError, ValueError) as error:
        raise SpError(f"The model card is not readable ({error}); mend or remove the .json file.") from error
    if len(size) != 3 or size[0] != fed.input_size[0] or not 1 <= min(size) <= max(size) <= 4096:
        raise SpError(f"The model card says input size {size}, but the network takes {fed.input_size[0]} channels.")
    if names is not None and len(names) != classes:
        raise SpError(f"The model card names {len(names)} classes, but the network has {classes}; mend the card.")
    return Feeding(size, mean, std, names, None)  # type: ignore[arg-type]


def read_card(path: Path) -> dict[str, Any] | None:
    """The model card (JSON object) at ``path``, or None when there is no file."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_CARD_BYTES:
            raise SpError(f"{path.name} has more than {MAX_CARD_BYTES // 2**20} MB; a model card is a small text.")
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpError(f"{path.name} is not a readable model card ({error}); mend or remove it.") from error
    if not isinstance(card, dict):
        raise SpError(f"{path.name} is not a model card: it must hold one JSON object.")
    return card
