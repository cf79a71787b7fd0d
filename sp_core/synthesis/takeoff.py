"""Whether a picture took off, and if not, why: a grey square under a proud title is worse than a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.synthesis.settings import AscentSettings

PATIENCE = 32  # steps after which a picture that has not moved is said not to have taken off
_RISE = 1e-5  # relative to the first value: less is no rise


class TakeOff:
    """Watches the values and gradients of an ascent.

    Attributes:
        messages: one a picture; ``""`` where all is well.
        hopeless: no picture has a gradient any more, so further steps would change nothing.
    """

    def __init__(self, names: Sequence[str], settings: AscentSettings) -> None:
        self._names, self._settings = names, settings
        self._first: Tensor | None = None
        self._latest: Tensor | None = None
        self.messages: tuple[str, ...] = ("",) * len(names)
        self.hopeless = False

    @property
    def _verdict(self) -> int:
        return max(PATIENCE, self._settings.redirect + 1)

    def wants_redirect(self, step: int) -> bool:
        """Whether this step should redirect gradients: one of the first, or one picture is still where it was.

        Never the step whose gradient is judged.
        """
        if step <= self._settings.redirect:
            return step < self._settings.steps
        if not self._settings.redirect or step >= min(self._verdict, self._settings.steps) or self._latest is None:
            return False
        assert self._first is not None, "note() keeps the first values"
        return bool((self._settings.sign * (self._latest - self._first) <= _RISE * self._first.abs()).any())

    def note(self, step: int, values: Tensor, gradients: Sequence[Tensor] | None, last: bool = False) -> None:
        """Take in one step's values ``[n]`` and gradients (None: the values do not depend on the picture at all)."""
        self._first = values if self._first is None else self._first
        self._latest = values
        if (last or step == 1 or step % 8 == 0) and not torch.isfinite(values).all():
            wrong = self._names[int((~torch.isfinite(values)).nonzero()[0])]
            raise SpError(
                f"{wrong} is NaN or infinite at step {step}. At step 1 that means damaged weights; "
                "later, a learning rate that is too large: try a smaller one."
            )
        if not last and step != self._verdict:
            return
        found = [self._judge(step, index, values, gradients) for index in range(len(self._names))]
        self.messages = tuple(message for message, _ in found)
        self.hopeless = all(zero and message for message, zero in found)

    def _judge(self, step: int, index: int, values: Tensor, gradients: Sequence[Tensor] | None) -> tuple[str, bool]:
        """The message for one picture, and whether its gradient is zero."""
        assert self._first is not None, "note() keeps the first values"
        name, value, first = self._names[index], float(values[index]), float(self._first[index])
        zero = gradients is None or not any(bool(gradient[index].any()) for gradient in gradients)
        way = "rise" if self._settings.sign > 0 else "fall"
        if self._settings.sign * (value - first) > _RISE * abs(first):
            return "", zero
        if gradients is None:
            return f"{name} did not take off: there is no path from it to the picture, which cannot change it.", True
        if zero:
            return (
                f"{name} did not take off: after {step} steps it is {value:.3g} and its gradient is 0 at every pixel. "
                "A channel that is always 0 is dead; for one that is not, try another seed or a larger `redirect`.",
                True,
            )
        return (
            f"{name} did not take off: in {step} steps it went from {first:.3g} to {value:.3g} and did not {way}. "
            "Try weaker transforms, another learning rate or another seed.",
            False,
        )
