"""Protocol buffers as they lie in a file: fields and where they are, in bounded memory.

The general library builds an object of every message, a hundred bytes for two, and a copy of every weight; here a
message is walked, and what is long is only pointed to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from sp_core.checkpoints.limits import Limits, raised_by
from sp_core.errors import SpError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message: its number, its wire type, its value (whole number), or where its bytes begin and end."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class Walker:
    """Walks messages of one file; every field costs a step, and there is a limit of steps."""

    def __init__(self, file: BinaryIO, name: str, limits: Limits) -> None:
        self.file, self.name, self.limits = file, name, limits
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count work; refuses more than the limit."""
        self._steps += steps
        if self._steps > self.limits.steps:
            raise SpError(f"{self.name} has more than {self.limits.steps} fields{raised_by('steps')}; save it again.")

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two places. Raises ValueError where the bytes are no message."""
        while start < end:
            self.spend(1)
            self.file.seek(start)
            head = self.file.read(min(20, end - start))
            tag, used = varint(head, 0)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise ValueError("a field without a number")
            if wire == VARINT:
                value, used = varint(head, used)
                yield Field(number, wire, value, start, start + used)
                start += used
                continue
            if wire == LENGTH:
                length, used = varint(head, used)
            elif wire in {FIXED32, FIXED64}:
                length = 4 if wire == FIXED32 else 8
            else:
                raise ValueError("a field of an unknown kind")
            if start + used + length > end:
                raise ValueError("a field reaches beyond its message")
            yield Field(number, wire, 0, start + used, start + used + length)
            start += used + length

    def data(self, field: Field, most: int = 2**20) -> bytes:
        """The bytes of a field that should be short."""
        if field.end - field.start > most:
            raise ValueError("a text is too long")
        self.file.seek(field.start)
        return self.file.read(field.end - field.start)

    def text(self, field: Field) -> str:
        """The text of a field."""
        return self.data(field, 4096).decode("utf-8", "replace")

    def number(self, field: Field) -> float:
        """A 32-bit real number."""
        return float(struct.unpack("<f", self.data(field))[0])

    def whole_numbers(self, field: Field) -> list[int]:
        """Repeated whole numbers, packed together or one by one; signed."""
        if field.wire == VARINT:
            return [signed(field.value)]
        data, place, found = self.data(field, self.limits.header_mb * 2**20), 0, []
        self.spend(len(data.translate(None, bytes(range(128, 256)))))  # each number ends in a byte below 128
        while place < len(data):
            value, place = varint(data, place)
            found.append(signed(value))
        return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The whole number at ``place``, seven bits a byte, and where the next thing begins.

    >>> varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value, shift = 0, 0
    while shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), place
        shift += 7
    raise ValueError("a number that does not end")


def signed(value: int) -> int:
    """A 64-bit number as a signed one."""
    return value - 2**64 if value >= 2**63 else value
