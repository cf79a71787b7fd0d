"""The tensors of a checkpoint under the names they may have had before wrapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sp_core.checkpoints.names import variants


@dataclass(frozen=True)
class View:
    """Attributes:
    tensors: name to tensor.
    shapes: name to shape, without BatchNorm's batch counters, which old files lack.
    note: a sentence on what was left out, or "".
    """

    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    note: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """``note``, if there is one."""
        return (self.note,) if self.note else ()


def view(tensors: Mapping[str, Tensor], note: str = "") -> View:
    """A view of ``tensors``.

    >>> import torch
    >>> view({"bn.weight": torch.ones(3), "bn.num_batches_tracked": torch.tensor(0)}).shapes
    {'bn.weight': (3,)}
    """
    counters = "num_batches_tracked"
    return View(
        tensors, {key: tuple(value.shape) for key, value in tensors.items() if not key.endswith(counters)}, note
    )


def views(tensors: Mapping[str, Tensor]) -> list[View]:
    """Every view, the likeliest first."""
    return [view(*variant) for variant in variants(tensors)]


def first_five(names: Iterable[str]) -> str:
    """The first five names and how many more there are.

    >>> first_five("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    every = list(names)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
