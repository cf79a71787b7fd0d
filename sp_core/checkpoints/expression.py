"""An architecture and its options as one text: ``torchvision:mobilenet_v2(width_mult=0.5)``.

It is what a verdict calls a network that is no standard one, and from it the network can be built again.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from sp_core.errors import SpError

_MOST = 1000  # letters; an expression is written by this program or by a person


def written(architecture: str, options: Mapping[str, Any]) -> str:
    """The text of an architecture with options; those it has already are replaced.

    >>> written("torchvision:mobilenet_v2", {"width_mult": 0.5})
    'torchvision:mobilenet_v2(width_mult=0.5)'
    """
    base, own = parsed(architecture)
    inside = ", ".join(f"{key}={value!r}" for key, value in sorted({**own, **options}.items()))
    return f"{base}({inside})" if inside else base


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The architecture without options, and the options: numbers, booleans and lists of numbers. Nothing is run.

    >>> parsed("torchvision:resnet18(layers=[1, 1, 1, 1])")
    ('torchvision:resnet18', {'layers': [1, 1, 1, 1]})
    """
    base, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    try:
        if not rest.endswith(")") or len(text) > _MOST:
            raise ValueError(text[:_MOST])
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError(rest)
        options = {item.arg: ast.literal_eval(item.value) for item in call.keywords if item.arg}
        if len(options) != len(call.keywords):
            raise ValueError(rest)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise SpError(
            f"'{text[:80]}' is not an architecture with options; write it as torchvision:mobilenet_v2(width_mult=0.5)."
        ) from error
    return base, options
