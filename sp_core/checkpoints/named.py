"""An architecture that a person names, with options: what may be asked for.

The classes, the input's channels, whether the stem is that for small images, and the plain numbers, booleans and words
that the architecture's own constructor takes.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sp_core import zoo
from sp_core.checkpoints.catalogue import skeleton, torchvision_names
from sp_core.checkpoints.expression import literal, parsed, written
from sp_core.checkpoints.timm_names import installed
from sp_core.errors import SpError
from sp_core.parameterizations import names as parameterizations

Options = Mapping[str, Any]

_OWN = ("classes", "channels", "small")
_MOST = 10_000  # of any number: each block of a depth is built
_MOST_CLASSES = 1_000_000
# Lists in architectures that were found in other sizes, beside the numbers that their constructors declare.
_LISTS = {
    "resnet": ("layers",),
    "shufflenet": ("stages_out_channels", "stages_repeats"),
    "densenet": ("block_config",),
    "mobilenet_v3": (),
}
_UNDECLARED = {"mobilenet_v3": ("width_mult", "reduced_tail", "dilated"), "mnasnet": ("alpha",)}
_SMALLER = {"levels": 12, "kernel": 63}  # of a TCN, whose padding is kernel · 2^levels; every other number is _MOST
_NUMBER, _LIST = "number", "list"  # what an option may be; else one of several texts
Kind = str | tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """``name``: the architecture with its constructor's options; ``classes``, ``channels``, ``small``: None where the
    file shall decide.
    """

    name: str
    classes: int | None = None
    channels: int | None = None
    small: bool | None = None


def asked(architecture: str, options: Options | None = None) -> Asked:
    """Check what a person asks for.

    >>> asked("torchvision:mobilenet_v2", {"width_mult": 0.5, "classes": 10})
    Asked(name='torchvision:mobilenet_v2(width_mult=0.5)', classes=10, channels=None, small=None)

    Raises:
        SpError: there is no such architecture or option, or the value is none that it may have.
    """
    base, inside = parsed(architecture.strip())
    kind, _, short = base.partition(":")
    _check_name(kind, short, base)
    given = {key: value for key, value in {**inside, **(options or {})}.items() if value is not None}
    own = {key: given.pop(key) for key in _OWN if key in given}
    allowed = _allowed(kind, short) if given else {}
    for key, value in given.items():
        if key not in allowed:
            known = ", ".join([*_OWN, *(allowed or _allowed(kind, short))])
            raise SpError(f"'{key[:40]}' is not an option of {base}; its options are: {known}.")
        _check_value(base, key, value, allowed[key])
    for key in ("classes", "channels"):
        value = own.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_CLASSES:
            raise SpError(f"{key} is a whole number of 1 or more; got {str(value)[:40]}.")
    small = own.get("small")
    if small is not None and not isinstance(small, bool):
        raise SpError(f"small is true (a 3×3 stem without pooling, as for CIFAR) or false; got {str(small)[:40]}.")
    if small and not (kind == "torchvision" and short.startswith(("resnet", "resnext", "wide_resnet"))):
        raise SpError(f"small is an option of torchvision's ResNets; {base} has no other stem for small images.")
    return Asked(written(base, given), own.get("classes"), own.get("channels"), small)


def option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` from the command line or an address.

    >>> option("width_mult=0.5"), option("small=true"), option("symmetry=eigen")
    (('width_mult', 0.5), ('small', True), ('symmetry', 'eigen'))
    """
    key, sign, value = text.partition("=")
    try:
        if not sign or len(value) > 200:
            raise ValueError(text)
        return key.strip(), literal(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpError(
            f"An option is written key=value (a number, true, false or a word), as width_mult=0.5; got '{text[:60]}'."
        ) from error


def _check_name(kind: str, short: str, base: str) -> None:
    if kind == "torchvision" and short in torchvision_names():
        return
    if kind == "zoo":
        zoo.entry(short)  # raises with names that are close
        return
    if kind == "timm":
        if not installed():
            raise SpError("timm is not installed; install it with: pip install timm")
        return
    known = [f"torchvision:{name}" for name in torchvision_names()] + [f"zoo:{name}" for name in zoo.names()]
    close = [name for name in known if name.partition(":")[2] == base] or difflib.get_close_matches(base, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "write torchvision:NAME, zoo:NAME or timm:NAME."
    raise SpError(f"There is no architecture '{base[:80]}'; {hint}")


def _allowed(kind: str, short: str) -> dict[str, Kind]:
    """The constructor's options: plain numbers or booleans, lists of whole numbers, or one of several texts."""
    if kind == "timm":
        return {}
    found: dict[str, Kind]
    if kind == "zoo":
        declared = inspect.signature(zoo.entry(short).make).parameters
        found = {key: _NUMBER for key, one in declared.items() if key != "classes" and _plain(one)}
        if "symmetry" in declared:
            found["symmetry"] = tuple(parameterizations("symmetric"))
        return found
    declared = inspect.signature(type(skeleton(f"torchvision:{short}"))).parameters
    found = {
        key: _NUMBER for key, one in declared.items() if key not in {"num_classes", "init_weights"} and _plain(one)
    }
    for table, own in ((_UNDECLARED, _NUMBER), (_LISTS, _LIST)):
        for start, keys in table.items():
            if short.startswith(start) or (start == "resnet" and "resne" in short):
                found |= dict.fromkeys(keys, own)
    return found


def _plain(parameter: inspect.Parameter) -> bool:
    plain = {"int", "float", "bool", "int | None", int, float, bool}  # annotations are texts where they are postponed
    return isinstance(parameter.default, (bool, int, float)) or parameter.annotation in plain


def _check_value(base: str, key: str, value: Any, kind: Kind) -> None:
    if kind == _LIST and isinstance(value, Sequence) and not isinstance(value, str) and 1 <= len(value) <= 16:
        whole = all(isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= _MOST for item in value)
        if whole and (sum(value) <= 400 or key == "stages_out_channels"):
            return
    most = _SMALLER.get(key, _MOST)
    if kind == _NUMBER and isinstance(value, (bool, int, float)) and math.isfinite(value) and 0 <= value <= most:
        return
    if isinstance(kind, tuple) and value in kind:
        return
    words = {_LIST: "a list of whole numbers, at most 400 blocks in all", _NUMBER: f"a number from 0 to {most:,}"}
    what = f"one of {', '.join(kind)}" if isinstance(kind, tuple) else words[kind]
    raise SpError(f"{key} of {base} is {what}; got {str(value)[:60]}.")
