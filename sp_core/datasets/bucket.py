"""Pictures in a bucket or another file system that has an address: ``s3://…``, ``gs://…``, ``file://…``.

Read through pyarrow's file systems, as Ray Data reads them, and through fsspec's where pyarrow has none (``abfs://``,
``hf://``; the package that fsspec names must be installed). Keys and regions come from where each of these looks for
them (environment, configuration files, the machine's role).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from sp_core import images as pictures
from sp_core.datasets.folder import ENDINGS, SIZE, Folder, _arrange, _wanted
from sp_core.errors import SpError


def is_address(source: Any) -> bool:
    """Whether ``source`` is written as an address: ``scheme://…``."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]*://", source) is not None


def file_system(source: str | Path) -> tuple[Any, str]:
    """The file system (pyarrow's) of an address or a path, and the path inside it, without a slash at its end.

    Raises:
        SpError: pyarrow is missing, or neither it nor fsspec knows the address.
    """
    try:
        from pyarrow import ArrowException, fs
    except ImportError as error:
        raise SpError("Buckets and Parquet need pyarrow; install it with: pip install pyarrow") from error
    if not is_address(source):
        return fs.LocalFileSystem(), Path(source).resolve().as_posix()
    text = str(source)
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (ArrowException, OSError, ValueError) as reason:
        try:
            import fsspec

            inner, path = fsspec.core.url_to_fs(text)
            system = fs.PyFileSystem(fs.FSSpecHandler(inner))
        except (ImportError, ValueError, OSError):
            raise SpError(f"{text} cannot be opened ({reason}); write an address such as s3://bucket/folder.") from None
    return system, path.rstrip("/")


def listed(system: Any, path: str) -> Iterator[Any]:
    """The ``FileInfo`` of ``path`` itself where it is a file, else of every file below it, sorted by path."""
    from pyarrow import ArrowException, fs

    try:
        info = system.get_file_info(path)
        if info.type == fs.FileType.File:
            yield info
        elif info.type == fs.FileType.Directory:
            found = system.get_file_info(fs.FileSelector(path, recursive=True))
            yield from sorted((row for row in found if row.type == fs.FileType.File), key=lambda row: row.path)
    except (ArrowException, OSError) as error:
        raise SpError(f"{path} cannot be listed ({error}); check the address and the keys.") from error


class Bucket(Folder):
    """The pictures below an address, in the order and with the classes that :class:`Folder` gives them.

    The fingerprint is made of paths, sizes and times of writing: reading into a million objects would take hours. So
    the same pictures copied elsewhere are another data set. A picture that is damaged or gone is an :class:`SpError`,
    an address that cannot be reached an ``OSError``, so that a lost connection is not taken for damaged pictures.

    Raises:
        SpError: the address is not known, cannot be listed, or has no pictures.

    >>> import tempfile, sp_core as sp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     len(Bucket(f"file://{folder}"))
    1
    """

    def __init__(self, source: str, *, size: int = SIZE) -> None:
        self.source, self.size = source, size
        self._system, root = file_system(source)
        self.path = PurePosixPath(root)  # type: ignore[assignment] # of the bucket, not of this machine
        self.name = self.path.name or source
        rows = []
        for info in listed(self._system, root):
            path = str(PurePosixPath(info.path).relative_to(root))
            if _wanted(path):
                rows.append((path, f"{info.size}|{info.mtime_ns}"))
        if not rows:
            raise SpError(f"{source} holds no pictures ({', '.join(sorted(ENDINGS))}); choose another address.")
        self.classes, self._entries = _arrange(rows)

    @cached_property
    def fingerprint(self) -> str:
        """Names the objects, their order and their classes."""
        digest = hashlib.sha256(f"bucket v1 size {self.size} {list(self.classes)}".encode())
        for entry in self._entries:
            digest.update(f"{entry.path}|{entry.label}|{entry.content}\n".encode())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> Bucket:
        """The first ``count`` pictures (with all the classes' names)."""
        short = copy.copy(self)
        vars(short).pop("fingerprint", None)
        short._entries = self._entries[:count]
        return short

    def picture(self, index: int) -> Image.Image:
        """Picture ``index``, upright RGB at its own size; raises SpError naming the file where it is damaged."""
        if not 0 <= index < len(self):
            raise SpError(f"{self.name} has pictures 0 to {len(self) - 1}; got {index}.")
        path = self._entries[index].path
        try:
            with self._system.open_input_stream(str(self.path / path)) as stream:
                data = stream.read(pictures.MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise SpError(f"{path} is no longer in {self.source}; build the index anew.") from error
        try:
            return pictures.open_image(data)
        except SpError as error:
            raise SpError(f"{path} in {self.source}: {error}") from error
