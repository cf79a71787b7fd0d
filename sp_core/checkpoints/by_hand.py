"""How a network is fed, as a person writes it: ``32x48``, ``imagenet``, ``0.5/0.25``, a file of class names.

The texts are the same on the command line, in the address bar and in the app; they come from strangers, so every one
that is not understood is a sentence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sp_core.checkpoints.expression import written as written_out
from sp_core.checkpoints.named import option
from sp_core.errors import SpError
from sp_core.network import IMAGENET_MEAN, IMAGENET_STD

Numbers = tuple[float, ...] | None

MOST_BYTES = 2**20  # of a file of class names
MOST_NAMES = 100_000
MOST_LETTERS = 200  # of a name
# Name to mean and std; one number stands for every channel.
NORMALISATIONS: dict[str, tuple[Numbers, Numbers]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # of the 50,000 training images
    "pytorch-cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # its std is the mean over images' own
    "mnist": ((0.1307,), (0.3081,)),  # of the 60,000 training images
    "half": ((0.5,), (0.5,)),  # [0, 1] to [-1, 1]
    "none": (None, None),
}
_ANYWHERE = {"half", "none"}
_WORDNET = re.compile(r"n\d{8}[ ,\t]+(?=\S)")
_PYTHON = re.compile(r"\{?\s*(\d+)\s*:\s*(['\"])(.*)\2\s*,?\s*\}?")  # a line of a Python dictionary, as ImageNet's list


def size(text: str) -> tuple[int, int]:
    """``(height, width)`` from ``"32"`` or ``"32x48"`` (height first).

    >>> size("32"), size("32×48")
    ((32, 32), (32, 48))
    """
    found = re.fullmatch(r"\s*(\d{1,5})(?:\s*[x×,]\s*(\d{1,5}))?\s*", text)
    if not found:
        raise SpError(f"An input size is written 224 or 32x48 (height × width); got '{text[:40]}'.")
    height, width = found.groups()
    return int(height), int(width or height)


def normalisation(text: str, channels: int) -> tuple[Numbers, Numbers]:
    """Mean and std, one number a channel, from a name of ``NORMALISATIONS`` or ``MEAN/STD``; None where there is none.

    >>> normalisation("0.5/0.25", 3), normalisation("none", 3)
    (((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), (None, None))
    """
    if text in NORMALISATIONS:
        if text not in usual(channels):
            size = len(NORMALISATIONS[text][0] or ())
            raise SpError(
                f"'{text}' is the normalisation of {size}-channel images, but this network takes {channels} channels; "
                "write MEAN/STD with one number a channel."
            )
        mean, std = NORMALISATIONS[text]
        return _each(mean, channels), _each(std, channels)
    mean_text, slash, std_text = text.partition("/")
    if not slash:
        raise SpError(
            f"A normalisation is one of {', '.join(usual(channels))}, or MEAN/STD such as 0.5/0.25; got '{text[:40]}'."
        )
    return numbers(mean_text, channels, "mean"), numbers(std_text, channels, "std")


def usual(channels: int) -> list[str]:
    """The names of ``NORMALISATIONS`` that fit images of ``channels`` channels."""
    return [name for name, (mean, _) in NORMALISATIONS.items() if name in _ANYWHERE or (mean and len(mean) == channels)]


def numbers(text: str, channels: int, what: str = "mean") -> tuple[float, ...]:
    """One number a channel from ``"0.5"`` (for all) or ``"0.4,0.5,0.6"``.

    >>> numbers("0.4, 0.5, 0.6", 3)
    (0.4, 0.5, 0.6)
    """
    try:
        values = tuple(float(part) for part in re.split(r"[,;\s]+", text.strip()))
    except ValueError:
        values = ()
    if len(values) not in {1, channels} or not all(math.isfinite(value) for value in values):
        raise SpError(
            f"The {what} is one number, or {channels} with commas between (one a channel); got '{text[:60]}'."
        )
    if what == "std" and min(values) <= 0:
        raise SpError(f"The std must be above 0 in every channel; got {text[:60]}.")
    return _each(values, channels) or ()


def _each(values: Numbers, channels: int) -> Numbers:
    return values * channels if values is not None and len(values) == 1 else values


def written(mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    """The shortest text of which :func:`normalisation` makes these; a name where there is one.

    >>> written(IMAGENET_MEAN, IMAGENET_STD), written((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    ('imagenet', '0.5/0.25')
    """
    channels = len(mean or std or (0,))
    for name in usual(channels):
        if normalisation(name, channels) == (mean and tuple(mean), std and tuple(std)):
            return name
    return f"{listed(mean or (0,))}/{listed(std or (1,))}"


def listed(values: Sequence[float]) -> str:
    """The shortest text of which :func:`numbers` makes exactly these.

    >>> listed((0.5, 0.5, 0.5)), listed((1, 125.3 / 255))
    ('0.5', '1,0.4913725490196078')
    """
    some = values[:1] if len(set(values)) == 1 else values
    return ",".join(repr(float(value)).removesuffix(".0") for value in some)


def class_names(data: bytes, filename: str) -> tuple[str, ...]:
    """Class names in index order from a file.

    Text holds one name a line (WordNet numbers before them are left out). JSON holds a list, or an object from numbers
    to names (``{"0": "tench"}``), to WordNet number and name (``{"0": ["n01440764", "tench"]}``), or from names to
    numbers (``{"tench": 0}``, ``class_to_idx``).

    >>> class_names(b'{"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}', "imagenet.json")
    ('tench', 'goldfish')
    """
    if len(data) > MOST_BYTES:
        raise SpError(f"{filename} has {len(data) / 2**20:.1f} MB; class names are at most {MOST_BYTES // 2**20} MB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpError(f"{filename} is not text in UTF-8; give one class name a line, or a JSON list.") from error
    names = _of_json(text, filename) if text.lstrip()[:1] in {"[", "{"} else None
    if names is None:
        names = _of_lines(text)
    names = [_tidy(name) for name in names]
    if not names or not all(names) or len(names) > MOST_NAMES:
        raise SpError(
            f"{filename} holds {len(names):,} class names{', some of them empty' if names and not all(names) else ''}; "
            "give one class name a line, or a JSON list."
        )
    return tuple(names)


def _of_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.strip().splitlines()]
    marked = [_PYTHON.fullmatch(line) for line in lines if line not in {"{", "}"}]
    if marked and all(marked):
        return _in_order({one.group(1): one.group(3) for one in marked if one}) or []
    return [_WORDNET.sub("", line, count=1) for line in lines]


def _of_json(text: str, filename: str) -> list[str] | None:
    """The names in a JSON text, None where it is none (a text file may begin with a bracket)."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, Mapping):
        inside = next((content[key] for key in ("id2label", "class_to_idx", "classes") if key in content), content)
        content = _in_order(inside) if isinstance(inside, Mapping) else inside
    if isinstance(content, list):
        names = [item[-1] if isinstance(item, list) and item else item for item in content]
        if all(isinstance(name, str) for name in names):
            return names
    raise SpError(f'{filename} is JSON, but neither a list of names nor {{"0": "name", …}}; mend it.')


def _in_order(table: Mapping[Any, Any]) -> list[Any] | None:
    """The values of a table whose keys are 0, 1, 2 …; its keys where the values are; None where neither."""
    for pairs in (table.items(), ((number, name) for name, number in table.items())):
        try:
            found = {int(number): name for number, name in pairs}
        except (TypeError, ValueError, OverflowError):  # 1e999 is infinite
            continue
        if sorted(found) == list(range(len(table))):
            return [found[index] for index in range(len(table))]
    return None


def _tidy(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name).strip()[:MOST_LETTERS]


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """:func:`class_names` of a file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SpError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from error
    return class_names(data, path.name)


def architecture(text: str) -> str:
    """An architecture with its options as :func:`sp_core.checkpoints.load` takes it, from what a person writes.

    >>> architecture("torchvision:resnet18 classes=10 small=true")
    'torchvision:resnet18(classes=10, small=True)'
    """
    name, *parts = text.split() if "(" not in text and text.strip() else [text.strip()]
    return written_out(name, dict(option(part) for part in parts[:20]))
