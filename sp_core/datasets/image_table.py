"""Parquet files of encoded images, such as those of Hugging Face: a row an image, with or without a label.

The image column holds the bytes of image files (``binary``, or a structure whose field ``bytes`` does); the label
column whole numbers or words. One group of rows is held at a time, so groups should be small: 100 to 1000 images.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sp_core import images as pictures
from sp_core.datasets.bucket import file_system, is_address, listed
from sp_core.datasets.folder import SIZE, seen
from sp_core.errors import SpError

GROUP_BYTES = 2**30  # of images in one group of rows, unpacked: what is held in memory
MOST_CLASSES = 100_000
_PROBE = 4096  # bytes read at the start, the middle and the end of a file to name its content


class ImageTable:
    """The images of one Parquet file, or of all Parquet files below a folder or an address, sorted by name.

    The fingerprint is made of the files' names, sizes and their first, middle and last 4096 bytes, and of the labels.
    Files that come to be at the end, by name, make the set grow; the earlier images keep their numbers.

    Args:
        source: a ``.parquet`` file or a folder of them, as a path or an address.
        image: the column of encoded images; by default the only one that can be it.
        label: the column of classes; by default ``label``, if there is one.

    Raises:
        SpError: there are no such files or columns, or a group of rows holds more than 1 GB of images. Later, an image
            that is missing or damaged is an SpError, a file that cannot be read an ``OSError``.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> data = pictures.png(Image.new("RGB", (40, 30)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"image": [data, data], "label": ["cat", "dog"]}), f"{folder}/a.parquet")
    ...     table = ImageTable(folder)
    >>> len(table), table.classes
    (2, ('cat', 'dog'))
    """

    def __init__(self, source: str | Path, *, image: str | None = None, label: str | None = None) -> None:
        self.source, self.size = source, SIZE
        self._system, root = file_system(source)
        found = [info for info in listed(self._system, root) if info.path.endswith(".parquet")]
        if not found:
            raise SpError(f"{source} holds no .parquet files; name one, or a folder of them.")
        home = PurePosixPath(root).parent if found[0].path == root else PurePosixPath(root)
        self.name = PurePosixPath(root).stem or str(source)
        self._files = [(str(PurePosixPath(info.path).relative_to(home)), info.path) for info in found]
        self._held: tuple[int, Any] = (-1, None)  # the group of rows that was read last
        self._groups: list[tuple[int, int, int]] = []  # file, group in it, rows
        labels: list[Any] = []
        self.image, self.label, names = image, label, None
        try:
            for number, (name, path) in enumerate(self._files):
                with self._open(path) as file:
                    if number == 0:
                        self.image, self.label = _columns(file.schema_arrow, image, label, name)
                        names = _class_names(file.schema_arrow, self.label)
                    self._take(file, number, name)
                    if self.label is not None:
                        labels += file.read(columns=[self.label]).column(0).to_pylist()
        except OSError as error:
            raise SpError(f"{source} cannot be read as Parquet ({error}); write it again.") from error
        self._ends = list(accumulate(rows for _, _, rows in self._groups))
        if not self._ends or not self._ends[-1]:
            raise SpError(f"{source} has no rows; name a table with images.")
        self.classes, self._labels = _classes(labels, names, self._ends[-1], str(source))

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[Any]:
        """One file, open; what goes wrong is an ``OSError``, and so is not taken for a damaged image."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._system.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"{path}: {error}") from error

    def _take(self, file: Any, number: int, name: str) -> None:
        """Note the groups of rows of a file."""
        if self.image not in file.schema_arrow.names or (self.label or self.image) not in file.schema_arrow.names:
            raise SpError(f"{name} has not the columns of {self._files[0][0]}; put it into a folder of its own.")
        for group in range(file.metadata.num_row_groups):
            row = file.metadata.row_group(group)
            chunks = (row.column(i) for i in range(row.num_columns))
            size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == self.image)
            if size > GROUP_BYTES:
                raise SpError(
                    f"{name} has groups of rows with {size / 2**30:.1f} GB of images, of which at most "
                    f"{GROUP_BYTES // 2**30} is held; write it with row_group_size=1000."
                )
            self._groups.append((number, group, row.num_rows))

    def __len__(self) -> int:
        return len(self._labels)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_held": (-1, None)}

    @cached_property
    def fingerprint(self) -> str:
        """Names the files that hold the images, the count, the labels and the classes."""
        digest = hashlib.sha256(f"parquet v1 {self.image} {len(self)} {list(self.classes)}".encode())
        digest.update(self._labels.tobytes())
        last = self._groups[bisect.bisect_right(self._ends, len(self) - 1)][0]
        for name, path in self._files[: last + 1]:
            with self._system.open_input_file(path) as file:
                size = file.size()
                probes = [file.read_at(min(_PROBE, size - at), at) for at in (0, size // 2, max(0, size - _PROBE))]
            digest.update(f"{name}|{size}|{hashlib.sha256(b''.join(probes)).hexdigest()}\n".encode())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> ImageTable:
        """The first ``count`` images (with all the classes' names)."""
        short = copy.copy(self)
        vars(short).pop("fingerprint", None)
        short._labels = self._labels[:count]
        return short

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """Images and labels ``start … stop - 1``: float32 ``[n, c, h, w]`` in [0, 1], int64 ``[n]``; -1 is unknown.

        With a network, resized and cropped as the network is fed; without, the middle square at 64 pixels, RGB.
        """
        rows = range(start, min(stop, len(self)))
        if not rows:
            raise SpError(f"{self.name} has images 0 to {len(self) - 1}; got {start} to {stop - 1}.")
        views = [seen(self.picture(row), self.size, network) for row in rows]
        return torch.stack(views), torch.from_numpy(self._labels[rows.start : rows.stop].copy())

    def picture(self, index: int) -> Image.Image:
        """Image ``index``, upright RGB at its own size; raises SpError where it is missing or damaged."""
        if not 0 <= index < len(self):
            raise SpError(f"{self.name} has images 0 to {len(self) - 1}; got {index}.")
        group = bisect.bisect_right(self._ends, index)
        value = self._column(group)[index - (self._ends[group] - self._groups[group][2])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise SpError(f"Row {index} of {self.source} has no image.")
        try:
            return pictures.open_image(data)
        except SpError as error:
            raise SpError(f"Row {index} of {self.source}: {error}") from error

    def _column(self, group: int) -> Any:
        """The images of one group of rows, as pyarrow has them."""
        held, column = self._held
        if held != group:
            number, inside, _ = self._groups[group]
            with self._open(self._files[number][1]) as file:
                column = file.read_row_group(inside, columns=[self.image]).column(0)
            self._held = (group, column)  # in one step: threads may share the table
        return column


def is_table(source: Any) -> bool:
    """Whether ``source`` is Parquet: a path that ends so, or a folder or an address that such files lie right below."""
    if not isinstance(source, (str, Path)):
        return False
    if str(source).endswith(".parquet"):
        return True
    if not is_address(source):
        return any(Path(source).glob("*.parquet"))
    from pyarrow import fs

    system, path = file_system(source)
    try:
        return any(info.path.endswith(".parquet") for info in system.get_file_info(fs.FileSelector(path)))
    except OSError:
        return False  # what is wrong is said when it is opened


def _columns(schema: Any, image: str | None, label: str | None, name: str) -> tuple[str, str | None]:
    """The names of the two columns; raises SpError where they are not there or cannot be guessed."""
    import pyarrow as pa

    def encoded(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind[i].name == "bytes" and encoded(kind[i].type) for i in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    able = [field.name for field in schema if encoded(field.type)]
    if image is None and len(able) != 1:
        said = f"{len(able)} columns of bytes ({', '.join(able)})" if able else "no column of encoded images"
        raise SpError(f"{name} has {said}; name one: ImageTable(source, image=…).")
    if image is not None and image not in able:
        raise SpError(f"'{image}' is not a column of encoded images of {name}; it has {', '.join(able) or 'none'}.")
    if label is not None and label not in schema.names:
        raise SpError(f"{name} has no column '{label}'; it has {', '.join(schema.names)}.")
    return image or able[0], label or ("label" if "label" in schema.names else None)


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """The class names that Hugging Face's library writes into the file."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _classes(
    labels: list[Any], names: list[str] | None, count: int, source: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and a label a row: -1 where there is none."""
    if not labels:
        return (), np.full(count, -1, np.int64)
    known = {label for label in labels if label is not None}
    if all(isinstance(label, str) for label in known):
        words = tuple(sorted(known))
        number = {word: at for at, word in enumerate(words)}
        numbers = [-1 if label is None else number[label] for label in labels]
    elif all(isinstance(label, int) and -1 <= label < MOST_CLASSES for label in known):
        numbers = [-1 if label is None else int(label) for label in labels]
        words = tuple(names or map(str, range(max(numbers) + 1)))
    else:
        odd = next(label for label in known if not isinstance(label, int) or not -1 <= label < MOST_CLASSES)
        raise SpError(f"The labels of {source} must be words, or numbers below {MOST_CLASSES:,}; got {odd!r:.40}.")
    if len(words) > MOST_CLASSES or max(numbers) >= len(words):
        raise SpError(f"{source} has {len(words):,} classes, and labels up to {max(numbers):,}; name another column.")
    return words, np.asarray(numbers, np.int64)
