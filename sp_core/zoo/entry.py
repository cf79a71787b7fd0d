"""One line of the zoo's table: how a network is made, and how it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Entry:
    """A named architecture.

    ``make``: ``(**options) -> nn.Module``. ``input_size``: (channels, height, width) in pixels; a signal in time is an
    image of height 1. ``mean``, ``std``: one number a channel, subtracted from and divided into an image in [0, 1];
    empty where the paper leaves them open: the network then takes [0, 1] as it is. ``classes``: names of the default
    outputs (empty when they have none). ``about``: one sentence with the source. ``marks``: names of weights that every
    checkpoint of it holds; one that lacks any of them is not compared with it, which saves building the network.
    ``caveat``: what a checkpoint that fits leaves open, as one sentence for the person; "" when nothing.
    ``elsewhere``: the same network under its usual name (``"torchvision:resnet50"``), by which a checkpoint of it is
    called; "" when the zoo is its only home.
    """

    make: Callable[..., nn.Module]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    about: str
    marks: frozenset[str] = frozenset()
    caveat: str = ""
    elsewhere: str = ""


def untrained(
    make: Callable[..., nn.Module], input_size: tuple[int, int, int], about: str, marks: set[str], caveat: str = ""
) -> Entry:
    """An entry for a network of a paper: its normalisation and its classes' names are not part of the architecture.

    >>> untrained(nn.Identity, (1, 32, 32), "Nothing.", {"weight"}).mean
    ()
    """
    return Entry(make, input_size, (), (), (), about, frozenset(marks), caveat)
