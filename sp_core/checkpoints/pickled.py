"""Both forms of ``torch.save``: a description of everything inside, none of it made (:mod:`.inert`)."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sp_core.checkpoints.archives import Archive
from sp_core.checkpoints.inert import Global, Machine, StandIn
from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.stand_ins import STAND_INS, is_plain, storage_dtype
from sp_core.checkpoints.stored import Storage, Stored
from sp_core.errors import SpError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass
class Described:
    """What a file holds, before any number is read.

    Attributes:
        kind: the container, in one word.
        content: what was saved: dictionaries, lists, numbers, texts, :class:`Stored` tensors.
        facts: small facts of the container itself.
        notes: sentences a person should read.
        foreign: classes and functions that the file would have called, in its order; with any, reading is refused.
        mentioned: foreign names that it only mentions.
        tensors: every tensor that was met, also those of foreign objects.
    """

    kind: str
    content: Any
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    foreign: tuple[str, ...] = ()
    mentioned: tuple[str, ...] = ()
    tensors: tuple[Stored, ...] = ()


def described(kind: str, content: Any, machine: Machine) -> Described:
    """The answer of a machine that has run."""
    mentioned = tuple(name for name in machine.named if name not in machine.called)
    return Described(kind, content, {}, [], tuple(machine.called), mentioned, tuple(machine.tensors))


def zip_machine(
    archive: Archive, folder: str, stand_ins: Mapping[str, StandIn] = STAND_INS, suffix: str = ""
) -> Machine:
    """A machine whose storages are the parts ``folder/KEY`` of ``archive``."""

    def find(machine: Machine, key: Any) -> Storage | Global:
        if not isinstance(key, tuple) or not key or key[0] != "storage":
            raise ValueError("a storage without a name")
        kind, name, count = key[1], key[2], key[4]
        name = str(name) if type(name) is int else name  # torch.package counts them
        if not isinstance(name, str) or type(count) is not int or count < 0:
            raise ValueError("a storage without a name or size")
        known = machine.storages.get((folder, name))
        if known is not None:
            return known
        storage = Storage(storage_dtype(kind), count, name, archive.file)
        path = f"{folder}/{name}{suffix}"
        if path in archive.members:
            storage.start, held = archive.span(path)
            if held < storage.size:
                raise SpError(
                    f"{archive.name}: its part '{path[:60]}' has {held} bytes where {storage.size} are needed; "
                    "it is damaged."
                )
        machine.storages[folder, name] = storage
        return storage

    return Machine(stand_ins, find, is_plain, archive.name, archive.limits)


def open_zip(archive: Archive) -> Described:
    """What ``torch.save`` wrote since version 1.6."""
    order = f"{archive.root}/byteorder"
    if order in archive.members and archive.content(order, 16).strip() == b"big":
        raise _big_endian(archive.name)
    archive.span(f"{archive.root}/data.pkl")  # refuses what someone has compressed
    machine = zip_machine(archive, f"{archive.root}/data")
    content = machine.run(io.BytesIO(archive.content(f"{archive.root}/data.pkl")))
    return described("zip", content, machine)


def open_legacy(file: BinaryIO, name: str, limits: Limits) -> Described | None:
    """What ``torch.save`` wrote before version 1.6; None for any other pickle."""

    def find(machine: Machine, key: Any) -> Storage | Global:
        if not isinstance(key, tuple) or len(key) < 2:
            raise ValueError("a storage without a name")
        if key[0] == "module":  # a class beside its source text
            if not isinstance(key[1], Global):
                raise ValueError("a module without a name")
            return key[1]
        if key[0] != "storage":
            raise ValueError("a storage without a name")
        kind, root, count = key[1], key[2], key[4]
        view = key[5] if len(key) > 5 else None
        if not isinstance(root, (str, int)) or type(count) is not int or count < 0:
            raise ValueError("a storage without a name or size")
        known = machine.storages.get(root)
        if known is None:
            known = machine.storages[root] = Storage(storage_dtype(kind), count, str(root), file)
        if view is None:
            return known
        part, first, length = view
        if any(type(number) is not int or number < 0 for number in (first, length)) or first + length > known.count:
            raise ValueError("a part of a storage lies outside it")
        if not isinstance(part, (str, int)):
            raise ValueError("a part of a storage without a name")
        return machine.storages.setdefault(
            ("part", root, part),
            Storage(known.dtype, length, known.name, file, -1, first * known.dtype.itemsize),
        )

    machine = Machine(STAND_INS, find, is_plain, name, limits)
    if machine.run(file) != LEGACY_MAGIC or machine.run(file) != _LEGACY_PROTOCOL:
        return None
    system = machine.run(file)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise _big_endian(name)
    content = machine.run(file)
    keys = machine.run(file)
    _locate(file, machine, keys)
    return described("legacy", content, machine)


def _locate(file: BinaryIO, machine: Machine, keys: Any) -> None:
    """Find where each storage lies: behind the pickles, in the order of ``keys``, each with its length before it."""
    if not isinstance(keys, list):
        raise TypeError("the storages are not listed")
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    starts: dict[str, int] = {}
    for key in keys:
        root = machine.storages.get(key) if isinstance(key, (str, int)) else None
        if root is None:
            raise ValueError("a storage is listed that no tensor lies in")
        file.seek(place)
        count = struct.unpack("<q", file.read(8))[0]
        if count != root.count or place + 8 + root.size > size:
            raise EOFError(f"the numbers of storage '{root.name[:40]}' are cut off")
        starts[root.name] = place + 8
        place += 8 + root.size
    for storage in machine.storages.values():
        storage.start = starts.get(storage.name, -1)


def describe_pickle(file: BinaryIO, name: str, limits: Limits) -> Described:
    """A plain pickle, for saying what is in it."""
    file.seek(0)
    machine = Machine(STAND_INS, lambda machine, key: Global("a persistent object"), is_plain, name, limits)
    return described("pickle", machine.run(file), machine)


def _big_endian(name: str) -> SpError:
    return SpError(
        f"{name} was written on a machine of the other byte order (big-endian); save it there as .safetensors."
    )
