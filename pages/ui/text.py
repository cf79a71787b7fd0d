"""Text from strangers: names of files, layers and classes, shown and never followed."""

from __future__ import annotations


def unmarked(text: str) -> str:
    r"""``text`` for Streamlit with its markdown shown, not followed.

    >>> unmarked("![a](b) layer_1")
    '\\!\\[a\\](b) layer\\_1'
    """
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>$~:!#" else letter for letter in text)
