"""A folder or a zip of pictures: each folder in it is a class; without folders there are no classes.

The order is by turns: the first picture of every class, then the second of every class, and so on, so that the first
n pictures are spread over the classes. Nothing of a zip is ever unpacked to disk.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sp_core import images as pictures
from sp_core.errors import SpError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})
SIZE = 64  # pixels, when no network says how it is fed
_PROBE = 4096  # bytes read at the start, the middle and the end of a file to name its content


def seen(picture: Image.Image, size: int, network: Any) -> Tensor:
    """What ``network`` is fed of a picture, ``[c, h, w]`` in [0, 1]; without one ``size`` × ``size`` RGB."""
    if network is not None:
        return network.view(picture)
    return pictures.to_tensor(pictures.resize_and_crop(picture, size, (size, size)))


@dataclass(frozen=True)
class _Entry:
    """One picture: its path inside the folder or zip, its class (-1: none), and what names its content."""

    path: str
    label: int
    content: str


class Folder:
    """The pictures of a folder or a ``.zip``, at any depth; the first folder level that branches gives the classes.

    A file with another ending than a picture's is passed over. The fingerprint is made of paths, sizes and, in a zip,
    checksums, in a folder the first, middle and last 4096 bytes of each file: reading all of ImageNet would take hours.

    Raises:
        SpError: no such folder, not a zip, or no pictures in it.
    """

    def __init__(self, path: str | Path, *, size: int = SIZE) -> None:
        self.path, self.size = Path(path), size
        self.name = self.path.stem if self.path.is_file() else self.path.resolve().name
        self._zip = not self.path.is_dir()
        listed = sorted(_list_zip(self.path) if self._zip else _list_folder(self.path))
        if not listed:
            raise SpError(
                f"{self.path} holds no pictures ({', '.join(sorted(ENDINGS))}); choose another folder or zip."
            )
        self.classes, self._entries = _arrange(listed)

    @cached_property
    def fingerprint(self) -> str:
        """Names the pictures, their order and their classes."""
        digest = hashlib.sha256(f"folder v1 size {self.size} {list(self.classes)}".encode())
        for entry in self._entries:
            content = entry.content if self._zip else _probe(self.path / entry.path)
            digest.update(f"{entry.path}|{entry.label}|{content}\n".encode())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._entries)

    def first(self, count: int) -> Folder:
        """The first ``count`` pictures (with all the classes' names)."""
        short = object.__new__(Folder)
        short.__dict__.update({k: v for k, v in self.__dict__.items() if k != "fingerprint"})
        short._entries = self._entries[:count]
        return short

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """Pictures and labels ``start … stop - 1``: float32 ``[n, c, h, w]`` in [0, 1], int64 ``[n]``; -1 is unknown.

        With a network, resized and cropped as the network is fed; without, the middle square at ``size`` pixels, RGB.
        """
        entries = self._entries[start:stop]
        views = [seen(self.picture(start + offset), self.size, network) for offset in range(len(entries))]
        if not views:
            raise SpError(f"{self.name} has pictures 0 to {len(self) - 1}; got {start} to {stop - 1}.")
        return torch.stack(views), torch.tensor([entry.label for entry in entries])

    def picture(self, index: int) -> Image.Image:
        """Picture ``index``, upright RGB at its own size; raises SpError naming the file where it is damaged."""
        if not 0 <= index < len(self):
            raise SpError(f"{self.name} has pictures 0 to {len(self) - 1}; got {index}.")
        path = self._entries[index].path
        if not self._zip:
            return pictures.open_image(self.path / path)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(path) as file:
                data = file.read(pictures.MAX_BYTES + 1)  # what the header says of the size need not be true
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, ValueError) as error:
            raise SpError(f"{path} in {self.path.name} cannot be unpacked ({error}); zip it again.") from error
        try:
            return pictures.open_image(data)
        except SpError as error:
            raise SpError(f"{path} in {self.path.name}: {error}") from error

    def file(self, index: int) -> str:
        """The path of picture ``index`` inside the folder or zip."""
        return self._entries[index].path


def _wanted(path: str) -> bool:
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and PurePosixPath(path).suffix.lower() in ENDINGS


def _list_folder(root: Path) -> Iterator[tuple[str, str]]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in files:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if _wanted(path):
                yield path, ""


def _list_zip(path: Path) -> list[tuple[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            rows = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SpError(f"{path} cannot be read as a zip of pictures ({error}); zip the folder again.") from error
    return [(row.filename, f"{row.file_size}|{row.CRC}") for row in rows if not row.is_dir() and _wanted(row.filename)]


def _arrange(listed: list[tuple[str, str]]) -> tuple[tuple[str, ...], list[_Entry]]:
    """Classes from the first folder level that is not the same for all, and the pictures by turns."""
    parents = [PurePosixPath(path).parent.parts for path, _ in listed]
    shared = 0
    while all(len(parts) > shared and parts[shared] == parents[0][shared] for parts in parents):
        shared += 1
    names = [parts[shared] if len(parts) > shared else "" for parts in parents]
    classes = tuple(sorted({name for name in names if name}))
    number = {name: label for label, name in enumerate(classes)} | {"": -1}
    by_class: dict[int, list[_Entry]] = defaultdict(list)
    for (path, content), name in zip(listed, names, strict=True):
        by_class[number[name]].append(_Entry(path, number[name], content))
    turns = [(turn, label, entry) for label, rows in by_class.items() for turn, entry in enumerate(rows)]
    return classes, [entry for _, _, entry in sorted(turns, key=lambda row: row[:2])]


def _probe(path: Path) -> str:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            parts = []
            for place in (0, size // 2, max(0, size - _PROBE)):
                file.seek(place)
                parts.append(file.read(_PROBE))
    except OSError as error:
        raise SpError(f"{path} cannot be read ({error.strerror}); check the folder and try again.") from error
    return f"{size}|{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"
