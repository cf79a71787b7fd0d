"""CIFAR-10 (Krizhevsky 2009) from a folder of one's own: it has no formal licence and is not bundled.

Three layouts are read: the two of https://www.cs.toronto.edu/~kriz/cifar.html (``data_batch_1`` … as pickles, or
``data_batch_1.bin`` …) and ``train/*.webp`` with ``train_labels.npy``, each picture 500 images one above the other.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sp_core import images as pictures
from sp_core.errors import SpError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


class Cifar10:
    """One part of CIFAR-10: 50,000 images for training or 10,000 for testing, 32 × 32 RGB.

    ``path`` is the folder, or its ``train`` or ``test`` inside. All pixels are held in memory once they are needed
    (154 MB for the training part).

    Raises:
        SpError: none of the three layouts is there, or a file has another content.
    """

    classes = CLASSES

    def __init__(self, path: str | Path, part: str | None = None) -> None:
        self.path = Path(path)
        if part is None and self.path.name in PARTS:
            self.path, part = self.path.parent, self.path.name
        self.part = part or "test"
        if self.part not in PARTS:
            raise SpError(f"CIFAR-10 has the parts train and test; got '{self.part}'.")
        self.name = f"CIFAR-10 {self.part}"
        if not str(path) or not self.path.is_dir():
            raise SpError(f"'{path}' is not a folder; write cifar10:PATH with the folder that holds CIFAR-10.")
        self._layout = self._find()

    def _find(self) -> str:
        for folder in (self.path, self.path / "cifar-10-batches-py", self.path / "cifar-10-batches-bin"):
            for layout, probe in (
                ("webp", f"{self.part}_labels.npy"),
                ("bin", f"{PARTS[self.part][0]}.bin"),
                ("python", PARTS[self.part][0]),
            ):
                if (folder / probe).is_file():
                    self.path = folder
                    return layout
        raise SpError(
            f"{self.path} does not hold the {self.part} part of CIFAR-10: there should be "
            f"{PARTS[self.part][0]}, {PARTS[self.part][0]}.bin, or {self.part}_labels.npy with {self.part}/*.webp."
        )

    @cached_property
    def _data(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels ``[n, 32, 32, 3]`` and labels ``[n]``."""
        try:
            images, labels = {"webp": _webp, "bin": _binary, "python": _python}[self._layout](self.path, self.part)
            images = images.reshape(-1, 32, 32, 3)
        except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise SpError(f"{self.path} cannot be read as CIFAR-10 ({error}); download it again.") from error
        labels = np.asarray(labels, dtype=np.int64)
        if len(images) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() > 9:
            raise SpError(
                f"{self.path} has {len(images)} images and {len(labels)} labels that do not fit; download it again."
            )
        return images, labels

    @cached_property
    def fingerprint(self) -> str:
        """Names the pixels, the labels and their order, whatever the layout."""
        images, labels = self._data
        digest = hashlib.sha256(b"cifar10 v1")
        digest.update(labels.tobytes())
        digest.update(np.ascontiguousarray(images).data)
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._data[1])

    def first(self, count: int) -> Cifar10:
        """The first ``count`` images, sharing the memory."""
        short = object.__new__(Cifar10)
        short.__dict__.update({k: v for k, v in self.__dict__.items() if k not in {"_data", "fingerprint"}})
        images, labels = self._data
        short.__dict__["_data"] = (images[:count], labels[:count])
        return short

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """Images and labels ``start … stop - 1``: float32 ``[n, c, h, w]`` in [0, 1], int64 ``[n]``.

        32 × 32 without a network, else resized and cropped as the network is fed.
        """
        images, labels = self._data
        pixels = images[start:stop]
        if not len(pixels):
            raise SpError(f"{self.name} has images 0 to {len(self) - 1}; got {start} to {stop - 1}.")
        if network is None or (tuple(network.input_size) == (3, 32, 32) and network.resize in {None, 32}):
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
        else:
            batch = torch.stack([network.view(Image.fromarray(image)) for image in pixels])
        return batch.contiguous(), torch.from_numpy(labels[start:stop].copy())

    def pixels(self) -> tuple[Tensor, Tensor]:
        """All images as they are stored, uint8 ``[n, 3, 32, 32]``, and labels int64 ``[n]``."""
        images, labels = self._data
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def picture(self, index: int) -> Image.Image:
        """Image ``index``, 32 × 32 RGB."""
        if not 0 <= index < len(self):
            raise SpError(f"{self.name} has images 0 to {len(self) - 1}; got {index}.")
        return Image.fromarray(self._data[0][index])


def _webp(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = np.load(folder / f"{part}_labels.npy", allow_pickle=False)
    files = sorted((folder / part).glob("*.webp"))
    stacks = [np.asarray(pictures.open_image(file)).reshape(-1, 32, 32, 3) for file in files]
    return np.concatenate(stacks), labels


def _planes(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of 1024 red, 1024 green, 1024 blue bytes as ``[n, 32, 32, 3]``."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rows = np.concatenate(
        [np.fromfile(folder / f"{name}.bin", dtype=np.uint8).reshape(-1, 3073) for name in PARTS[part]]
    )
    return _planes(rows[:, 1:]), rows[:, 0].astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Reads the original pickles, which hold a dictionary of numpy arrays and lists, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            import codecs

            return codecs.encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not data")


def _python(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = [], []
    for name in PARTS[part]:
        table = _ArraysOnly(io.BytesIO((folder / name).read_bytes()), encoding="bytes").load()
        images.append(np.asarray(table[b"data"], dtype=np.uint8).reshape(-1, 3072))
        labels.extend(table[b"labels"])
    return _planes(np.concatenate(images)), np.asarray(labels, dtype=np.int64)
