"""An architecture and its options as one text: ``torchvision:mobilenet_v2(width_mult=0.5)``.

It is what a verdict calls a network that is no standard one, and from it the network can be built again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from sp_core.errors import SpError

_MOST = 1000  # letters; an expression is written by this program or by a person
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "none": None}
_WORD = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
# What stands for a value: a quoted text, a list, or anything without brackets, quotes and commas.
_VALUE = r"""'[^'\\]*'|"[^"\\]*"|\[[^][()]*\]|\([^][()]*\)|[^][(){}'",=]+"""
_ITEM = re.compile(rf"\s*([A-Za-z]\w*)\s*=\s*({_VALUE})\s*(?:,|$)")


def written(architecture: str, options: Mapping[str, Any]) -> str:
    """The text of an architecture with options; those it has already are replaced.

    >>> written("torchvision:mobilenet_v2", {"width_mult": 0.5})
    'torchvision:mobilenet_v2(width_mult=0.5)'
    """
    base, own = parsed(architecture)
    inside = ", ".join(f"{key}={value!r}" for key, value in sorted({**own, **options}.items()))
    return f"{base}({inside})" if inside else base


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The architecture without options, and the options; what each may be is said by :func:`literal`.

    >>> parsed("torchvision:resnet18(layers=[1, 1, 1, 1])")
    ('torchvision:resnet18', {'layers': [1, 1, 1, 1]})
    >>> parsed("zoo:wrn-16-1(symmetry=soft-l1, classes=10)")
    ('zoo:wrn-16-1', {'symmetry': 'soft-l1', 'classes': 10})
    """
    base, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    try:
        if not rest.endswith(")") or len(text) > _MOST:
            raise ValueError(text[:_MOST])
        return base, _items(rest[:-1])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpError(
            f"'{text[:80]}' is not an architecture with options; write it as torchvision:mobilenet_v2(width_mult=0.5)."
        ) from error


def _items(inside: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    at = 0
    while at < len(inside) and inside[at:].strip():
        found = _ITEM.match(inside, at)
        if found is None or found[1] in options:
            raise ValueError(inside[at:])
        options[found[1]] = literal(found[2])
        at = found.end()
    return options


def literal(text: str) -> Any:
    """A number, true, false or none, a list of numbers, a quoted text or one plain word. Nothing is run.

    Raises:
        ValueError, SyntaxError: it is none of these.

    >>> literal("5e-1"), literal("true"), literal("[3, 4]"), literal("soft-l1"), literal("'eigen'")
    (0.5, True, [3, 4], 'soft-l1', 'eigen')
    """
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        if _WORD.fullmatch(word):
            return word
        raise
