"""Text from strangers: names of files, layers and classes, shown and never followed."""

from __future__ import annotations

import re

_SIGNS = re.compile(r"([\\`*_\[\]<>$~!#]|:(?=[\w+/-]+:))")  # the last: :material/home: and :smile:


def unmarked(text: str) -> str:
    r"""``text`` for Streamlit with its markdown shown, not followed.

    >>> unmarked("![a](b) layer_1 :smile: zoo:net")
    '\\!\\[a\\](b) layer\\_1 \\:smile: zoo:net'
    """
    return _SIGNS.sub(r"\\\1", text)


def sentence(text: str) -> str:
    r"""A message for ``st.error``: words are shown as they are, and lines set in by four spaces become a block of code.

    >>> print(sentence("Save it so:\n    torch.save(x, 'y')\nThen open y."))
    Save it so:
    ```python
    torch.save(x, 'y')
    ```
    Then open y.
    """
    lines: list[str] = []
    code = False
    for line in text.splitlines():
        inside = line.startswith("    ")
        if inside != code:
            lines.append("```python" if inside else "```")
        lines.append(line[4:] if inside else unmarked(line))
        code = inside
    return "\n".join([*lines, "```"] if code else lines)


def beginning(text: str, most: int = 140) -> str:
    """The first words of a long message, for a narrow place beside the whole of it.

    >>> beginning("one two three", 9)
    'one two …'
    """
    line = text.splitlines()[0] if text else ""
    return unmarked(line if len(line) <= most else line[:most].rsplit(" ", 1)[0] + " …")
