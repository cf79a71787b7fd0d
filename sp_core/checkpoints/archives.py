"""The directory of a zip archive, as torch writes them, checked before anything in it is believed.

Only the directory is parsed, in bounded memory; Python's ``zipfile`` makes an object of every entry that the bytes can
hold before one can count them. Weights lie in parts that are stored as they are: where each begins is all that is
needed. Small texts may be compressed; they are unpacked to a given size and no further.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from sp_core.checkpoints.limits import Limits, raised_by
from sp_core.errors import SpError

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_ENTRY_BYTES = 128  # of the directory, on average at most; torch's are shorter
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF
STORED, DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class Member:
    """One part of an archive: its path, how it is packed, its size in the archive and unpacked, its local header."""

    path: str
    method: int
    packed: int
    size: int
    header: int


class Archive:
    """The parts of a zip file by path.

    Raises:
        SpError: too many parts, or parts that claim more than the file holds.
        ValueError, struct.error: the directory is damaged.
    """

    def __init__(self, file: BinaryIO, name: str, limits: Limits) -> None:
        self.file, self.name, self.limits = file, name, limits
        self.bytes = file.seek(0, io.SEEK_END)
        self.members = {member.path: member for member in self._directory()}
        held = sum(member.packed for member in self.members.values())
        if held > self.bytes:
            raise SpError(
                f"{name} is {self.bytes} bytes long but claims to hold more than that; it is damaged or made to harm."
            )
        for member in self.members.values():
            if member.size > max(member.packed, 1) * limits.ratio and member.size > 2**16:
                raise SpError(
                    f"{name}: its part '{member.path[:60]}' would unpack to more than {limits.ratio} times its size"
                    f"{raised_by('ratio')}; it is made to harm."
                )
        pickles = [path for path in self.members if path.split("/")[1:] == ["data.pkl"]]
        self.root = pickles[0].removesuffix("/data.pkl") if len(pickles) == 1 else ""

    def _directory(self) -> list[Member]:
        at = max(0, self.bytes - _FULL16 - 22)
        self.file.seek(at)
        tail = self.file.read(_FULL16 + 22)
        found = tail.rfind(_END)
        if found < 0:
            raise ValueError("the archive has no directory at its end")
        count, size, start = struct.unpack("<HII", tail[found + 10 : found + 20])
        end = at + found
        if count == _FULL16 or _FULL32 in {size, start}:
            self.file.seek(max(0, end - 20))
            locator = self.file.read(20)
            if locator[:4] != _LOCATOR64:
                raise ValueError("the archive has no directory at its end")
            self.file.seek(struct.unpack("<Q", locator[8:16])[0])
            record = self.file.read(56)
            if record[:4] != _END64:
                raise ValueError("the archive has no directory at its end")
            count, size, start = struct.unpack("<QQQ", record[32:56])
        most = self.limits.members
        if count > most or size > most * _ENTRY_BYTES:
            raise SpError(
                f"{self.name} holds {count} parts; a checkpoint may have at most {most}{raised_by('members')}."
            )
        if start + size > self.bytes:
            raise ValueError("the archive's directory lies outside it")
        self.file.seek(start)
        table = self.file.read(size)
        members, place = [], 0
        for _ in range(count):
            member, place = _entry(table, place)
            members.append(member)
        return members

    def span(self, path: str) -> tuple[int, int]:
        """Where the bytes of a part begin in the file, and how many there are; SpError where it is compressed."""
        member = self.members[path]
        if member.method != STORED or member.packed != member.size:
            raise SpError(
                f"{self.name} is a compressed zip archive, which torch.save never writes; "
                "unpack it and give the file inside."
            )
        start = self._start(member)
        if start + member.size > self.bytes:
            raise ValueError(f"the part '{path[:60]}' lies outside the file")
        return start, member.size

    def _start(self, member: Member) -> int:
        self.file.seek(member.header)
        local = self.file.read(30)
        if local[:4] != _LOCAL or len(local) < 30:
            raise ValueError(f"the part '{member.path[:60]}' is not where the directory says")
        name, extra = struct.unpack("<HH", local[26:30])
        return member.header + 30 + int(name) + int(extra)

    def content(self, path: str, most: int | None = None) -> bytes:
        """The bytes of a small part, unpacked; at most ``most`` or the limit of names."""
        member = self.members[path]
        most = self.limits.header_mb * 2**20 if most is None else most
        if member.size > most or member.packed > most:
            raise SpError(
                f"{self.name} lists more than {most // 2**20} MB of names ('{path[:60]}')"
                f"{raised_by('header_mb')}; that is no network."
            )
        self.file.seek(self._start(member))
        data = self.file.read(member.packed)
        if len(data) < member.packed:
            raise ValueError(f"the part '{path[:60]}' lies outside the file")
        if member.method == DEFLATED:
            data = zlib.decompressobj(-15).decompress(data, member.size + 1)
        elif member.method != STORED:
            raise ValueError(f"the part '{path[:60]}' is packed in an unknown way")
        if len(data) != member.size:
            raise ValueError(f"the part '{path[:60]}' has another size than the directory says")
        return data


def _entry(table: bytes, place: int) -> tuple[Member, int]:
    """The entry of the directory at ``place``, and where the next one begins."""
    if table[place : place + 4] != _ENTRY:
        raise ValueError("the archive's directory is damaged")
    flags, method = struct.unpack("<HH", table[place + 8 : place + 12])
    packed, size, name, extra, comment = struct.unpack("<IIHHH", table[place + 20 : place + 34])
    header = struct.unpack("<I", table[place + 42 : place + 46])[0]
    names = place + 46
    if flags & 1:
        raise ValueError("the archive is locked with a password")
    path = table[names : names + name].decode("utf-8", "replace")
    more = table[names + name : names + name + extra]
    while len(more) >= 4:  # fields of 64 bits, for those that have no room above
        kind, length = struct.unpack("<HH", more[:4])
        if kind == 1:
            wide = list(struct.unpack(f"<{min(length, len(more) - 4) // 8}Q", more[4 : 4 + length // 8 * 8]))
            size = wide.pop(0) if size == _FULL32 else size
            packed = wide.pop(0) if packed == _FULL32 else packed
            header = wide.pop(0) if header == _FULL32 else header
        more = more[4 + length :]
    return Member(path, method, packed, size, header), names + name + extra + comment
