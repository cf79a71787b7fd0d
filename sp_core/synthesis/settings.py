"""What a person can turn, with the range of each; a value outside it is an SpError that names value and range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sp_core.errors import SpError

PRECISIONS = ("auto", "float32", "bfloat16")
PARAMETRISATIONS = ("fourier", "pixel", "maco")
# Phases are in radians and only their change shows, so they take larger steps than latent planes.
LEARNING_RATES = {"fourier": 0.05, "pixel": 0.05, "maco": 0.2}


@dataclass(frozen=True)
class AscentSettings:
    """How a picture is made by gradient ascent.

    Attributes:
        steps: of Adam, 1 to 512.
        learning_rate: of Adam, in units of the parametrisation, 0.0001 to 10; None is its usual one (0.05; maco 0.2).
        parametrisation: "fourier", "pixel" or "maco" (see :mod:`sp_core.synthesis.parameterizations`).
        sign: 1 raises the unit, -1 lowers it (a unit that ends in a ReLU is then followed to before the ReLU).
        seed: of the first noise and of the transforms, 0 to 2**63 - 1. The same seed on a CPU gives the same picture,
            bit for bit; on a GPU the resampling's gradient adds in no fixed order, and rounding differs.
        size: the shorter side of the picture in pixels, 8 to 512; None is what the unit can see, with a margin, at
            most the network's own input.
        transforms: strength of the random shift, zoom and turn, 0 (none) to 4; 1 is the usual (see
            :func:`sp_core.synthesis.transforms.usual`).
        position: where a unit without a position is driven: "channel" (mean of all positions) or "centre".
        copies: pictures of each unit, 1 to 16, from different noise.
        diversity: how much the copies of a unit are driven apart, 0 to 10, in units of the activation.
        redirect: for how many steps a ReLU that blocks the whole gradient lets it through, 0 (never) to 512; Lucid's
            16. Where a picture has not moved by then it goes on to step 31.
        precision: of the products in a step: "float32", "bfloat16" or "auto", which is bfloat16 on CPUs with matrix
            units for it (see :mod:`sp_core.synthesis.precision`). What was reached is always measured in float32.
    """

    steps: int = 256
    learning_rate: float | None = None
    parametrisation: str = "fourier"
    sign: int = 1
    seed: int = 0
    size: int | None = None
    transforms: float = 1.0
    position: str = "channel"
    copies: int = 1
    diversity: float = 0.0
    redirect: int = 16
    precision: str = "auto"

    def __post_init__(self) -> None:
        _whole("steps", self.steps, 1, 512)
        _among("parametrisation", self.parametrisation, PARAMETRISATIONS)
        _among("sign", self.sign, (1, -1))
        _whole("seed", self.seed, 0, 2**63 - 1)
        _number("transforms", self.transforms, 0, 4)
        _among("position", self.position, ("channel", "centre"))
        _whole("copies", self.copies, 1, 16)
        _number("diversity", self.diversity, 0, 10)
        _whole("redirect", self.redirect, 0, 512)
        _among("precision", self.precision, PRECISIONS)
        if self.learning_rate is not None:
            _number("learning_rate", self.learning_rate, 1e-4, 10)
        if self.size is not None:
            _whole("size", self.size, 8, 512)

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return LEARNING_RATES[self.parametrisation] if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class DreamSettings:
    """How DeepDream alters a picture (Mordvintsev, Olah, Tyka 2015; numbers of google/deepdream's notebook).

    Attributes:
        target: a layer ("layer3") or a unit ("layer3:20"); None is a layer about two thirds of the way up.
        octaves: how many sizes, smallest first, 1 to 12; None is as many as keep the shorter side at 32 pixels or
            more, at most 5.
        scale: from one octave to the next, 1.1 to 3.
        steps: at each octave, 1 to 100.
        strength: how far one step moves the average pixel, in 1/255 of the range from black to white, 0.01 to 20.
        jitter: largest random shift before each step in pixels, 0 to 128; at most a quarter of the shorter side.
        seed: of the shifts, 0 to 2**63 - 1.
        tile: the largest side in pixels that goes through the network at once, 64 to 1024; bounds the memory.
        max_pixels: a larger picture is made smaller first, and the records say so; 4096 to 16,000,000.
        precision: of the products in a step, as in :class:`AscentSettings`.
    """

    target: Any = None
    octaves: int | None = None
    scale: float = 1.4
    steps: int = 10
    strength: float = 1.5
    jitter: int = 32
    seed: int = 0
    tile: int = 512
    max_pixels: int = 2_000_000
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.octaves is not None:
            _whole("octaves", self.octaves, 1, 12)
        _number("scale", self.scale, 1.1, 3)
        _whole("steps", self.steps, 1, 100)
        _number("strength", self.strength, 0.01, 20)
        _whole("jitter", self.jitter, 0, 128)
        _whole("seed", self.seed, 0, 2**63 - 1)
        _whole("tile", self.tile, 64, 1024)
        _whole("max_pixels", self.max_pixels, 4096, 16_000_000)
        _among("precision", self.precision, PRECISIONS)


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpError(f"`{name}` must be a whole number from {low} to {high}; got {value!r}.")


def _number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SpError(f"`{name}` must be a number from {low:g} to {high:g}; got {value!r}.")
    if not low <= value <= high:
        raise SpError(f"`{name}` must be a number from {low:g} to {high:g}; got {value!r}.")


def _among(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if isinstance(value, bool) or value not in choices:
        raise SpError(f"`{name}` must be one of {', '.join(map(str, choices))}; got {value!r}.")
