"""Recipes: everything that decides how a bundled checkpoint comes out, as data."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import Any

from sp_core.errors import SpError


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, for how long.

    ``architecture``: a name of the zoo. ``seed``: of the initial weights. ``data_seed``: of the training textures;
    ``held_out_seed``: of those that only measure (another seed, so no image is in both). ``steps``: updates;
    ``batch``: images an update. ``learning_rate``: the highest, after ``warmup`` steps; it falls to zero along a
    cosine. ``weight_decay``: of weights, not of biases and batch normalisation; ``first_weight_decay``: of the first
    layer, larger because decay is what removes the initial noise from filters that are looked at. ``label_smoothing``:
    share of the target given to all classes alike. ``average``: decay of the moving average of weights that is kept.
    ``measure_every``: steps between two measurements and saves. ``dataset``: "textures" or "cifar10" (then
    ``data_seed`` decides order, crops and flips, and the test part is held out). ``options``: of ``zoo.create``.
    ``penalty``: weight in the loss of the asymmetry of soft-L1 layers
    (:func:`sp_core.parameterizations.asymmetry`).
    """

    name: str
    architecture: str
    steps: int
    batch: int = 128
    learning_rate: float = 0.03
    momentum: float = 0.9
    warmup: int = 200
    weight_decay: float = 5e-4
    first_weight_decay: float = 4e-3
    label_smoothing: float = 0.0
    average: float = 0.998
    seed: int = 0
    data_seed: int = 1
    held_out_seed: int = 0
    held_out: int = 4_104
    measure_every: int = 500
    dataset: str = "textures"
    options: dict[str, Any] = field(default_factory=dict)
    penalty: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of update ``step`` (0 … steps - 1): linear warm-up, then a cosine to zero.

        Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5 without restarts.

        >>> Recipe("r", "textures-vgg", steps=1000, learning_rate=1.0, warmup=10).rate(9)
        1.0
        """
        warmup = min(self.warmup, self.steps // 10)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("textures-alexnet", "textures-alexnet", steps=7_000),
        Recipe("textures-vgg", "textures-vgg", steps=5_500),
        # Batch normalisation makes the size of a filter free: larger steps, and less decay that washes noise out.
        Recipe("textures-resnet", "textures-resnet", steps=5_000, learning_rate=0.1, first_weight_decay=2e-3),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    >>> recipe("textures-vgg").architecture
    'textures-vgg'
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of: {', '.join(RECIPES)}"
        raise SpError(f"'{name}' is not a training recipe; {hint}")
    return RECIPES[name]
