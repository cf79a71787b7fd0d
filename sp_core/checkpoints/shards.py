"""A checkpoint in several files: an index that says which file holds which tensor, and the files beside it.

The index is a text of someone else: a file it names must lie beside it, under a plain name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import BinaryIO

from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.names import clean, find_state
from sp_core.checkpoints.pickled import Described
from sp_core.checkpoints.refusals import refusal
from sp_core.checkpoints.safetensors_file import parse_json
from sp_core.checkpoints.stored import Stored
from sp_core.errors import SpError

MAX_PARTS = 200
_PART = re.compile(r"^(?P<stem>.+)-0*(?P<part>\d{1,5})-of-0*(?P<parts>\d{1,5})(?P<ending>\.\w{1,20})$")


def open_index(file: BinaryIO, name: str, size: int, limits: Limits) -> Described:
    """An index (``model.safetensors.index.json``): its content is the map of names to files."""
    if size > limits.header_mb * 2**20:
        raise SpError(f"{name} is a JSON text of {size / 2**20:.0f} MB, not weights; give the checkpoint file itself.")
    file.seek(0)
    parsed = parse_json(file.read(), name, limits)
    places = parsed.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SpError(
            f"{name} is a JSON text, not weights (keys: {', '.join(clean(key)[:30] for key in list(parsed)[:4])}); "
            "give the checkpoint file itself, or the index of one in several files (…index.json)."
        )
    if not all(isinstance(part, str) for part in places.values()):
        raise SpError(f"{name} is an index whose 'weight_map' does not name files; save the checkpoint again.")
    return Described("index", places)


def part_names(index: Described, name: str) -> list[str]:
    """The files that an index names, in its order; every one is a plain name of a file beside it.

    >>> part_names(Described("index", {"a": "../secret"}), "model.index.json")
    Traceback (most recent call last):
    sp_core.errors.SpError: model.index.json names the file '../secret'; the parts must lie beside it, without a folder.
    """
    parts = list(dict.fromkeys(index.content.values()))
    for part in parts:
        plain = PurePosixPath(part).name == part == PureWindowsPath(part).name and part not in {"", ".", ".."}
        if not plain or clean(part) != part or len(part) > 200:
            raise SpError(
                f"{name} names the file '{clean(part)[:80]}'; the parts must lie beside it, without a folder."
            )
    if len(parts) > MAX_PARTS:
        raise SpError(f"{name} names {len(parts)} files; at most {MAX_PARTS} are read.")
    return parts


def open_parts(
    index: Described,
    name: str,
    open_part: Callable[[str], BinaryIO | None],
    describe: Callable[[BinaryIO, str, Limits], Described],
    limits: Limits,
) -> Described:
    """All tensors that ``index`` names, from the files that ``open_part`` finds (None: it is not there).

    Raises:
        SpError: a file or a tensor is missing, a tensor lies in two files, or all files together exceed the limits.
    """
    parts = part_names(index, name)
    opened = {part: open_part(part) for part in parts}
    missing = [part for part in parts if opened[part] is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SpError(
            f"{name} is the index of {len(parts)} files; not found beside it: {', '.join(missing[:3])}{more}. "
            "Put them in the same folder, or upload them together with the index."
        )
    limits.check_file(sum(file.seek(0, 2) for file in opened.values() if file is not None), f"{name} with its parts")
    tensors: dict[str, Stored] = {}
    held_by: dict[str, str] = {}
    facts: dict[str, object] = {}
    for part, file in opened.items():
        assert file is not None
        found = describe(file, part, limits)
        if found.kind == "index":
            raise SpError(f"{name} names the index '{part}' as a part; give the file with the weights.")
        if found.foreign:
            raise refusal(found, part)
        state = find_state(found.content)
        facts |= found.facts
        for key, tensor in (state[0] if state else {}).items():
            if key in tensors:
                raise SpError(
                    f"{name}: '{clean(key)}' lies in two parts, {held_by[key]} and {part}; which one is right?"
                )
            tensors[key], held_by[key] = tensor, part
        limits.check_count(len(tensors), name)
    for key, part in index.content.items():
        if held_by.get(key) != part:
            where = f"it lies in {held_by[key]}" if key in held_by else "no part holds it"
            raise SpError(f"{name} says that '{clean(key)}' lies in {part}, but {where}; copy the files again.")
    notes = [f"Read from {len(parts)} files."]
    beyond = [key for key in tensors if key not in index.content]
    if beyond:
        notes.append(f"{len(beyond)} tensors that the index does not name were left out ({clean(beyond[0])}).")
    return Described("sharded", {key: tensors[key] for key in index.content}, dict(facts), notes)


def lone_part_note(name: str) -> str:
    """What to say of one file of several; "" for other names.

    >>> lone_part_note("model-00001-of-00003.safetensors")
    'This is part 1 of 3; open model.safetensors.index.json beside it to read all of them.'
    """
    found = _PART.match(name)
    if found is None or int(found["parts"]) < 2:
        return ""
    index = f"{found['stem']}{found['ending']}.index.json"
    return f"This is part {found['part']} of {found['parts']}; open {index} beside it to read all of them."
