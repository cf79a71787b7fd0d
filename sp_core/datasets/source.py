"""What a set of images is to the rest of the program, and how a name such as ``"textures"`` becomes one.

A data set is anything with ``name``, ``classes``, ``fingerprint``, ``len()``, ``batch(start, stop, network)`` and
``picture(index)``. Image ``i`` is the same image for ever: an index of patches keeps numbers, not pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from sp_core.datasets.textures import LARGEST, SMALLEST, Textures, render
from sp_core.errors import SpError


@runtime_checkable
class Dataset(Protocol):
    """A numbered set of images.

    ``batch`` gives float32 ``[n, c, h, w]`` in [0, 1] as ``network`` is fed (at a size of its own without one) and
    int64 labels ``[n]``, -1 where unknown. ``fingerprint`` changes whenever any image or its number would.
    """

    @property
    def name(self) -> str:
        """What it is called on the screen."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; empty when there are none."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits."""

    def __len__(self) -> int: ...

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """Images and labels ``start … stop - 1``."""

    def picture(self, index: int) -> Image.Image:
        """Image ``index``, RGB."""


class First:
    """The first ``count`` images of a data set that has no shorter form of its own.

    >>> len(First(Textures(100), 5))
    5
    """

    def __init__(self, dataset: Any, count: int) -> None:
        self.whole, self.count = dataset, count
        self.name, self.classes = dataset.name, tuple(dataset.classes)

    @property
    def fingerprint(self) -> str:
        """Names the whole set and the count."""
        return hashlib.sha256(f"{self.whole.fingerprint} first {self.count}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.count

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        """As the whole set's, up to ``count``."""
        return self.whole.batch(start, min(stop, self.count), network)

    def picture(self, index: int) -> Image.Image:
        """As the whole set's."""
        return self.whole.picture(index)


def take(dataset: Any, count: int) -> Any:
    """The first ``count`` images; the data set itself when it has no more.

    For a growing set this is the earlier set again, with the earlier fingerprint, which is how an index knows that
    it may go on where it was.

    >>> take(Textures(500), 100).fingerprint == Textures(100).fingerprint
    True
    """
    if count < 1:
        raise SpError(f"At least 1 image is needed; got {count}.")
    if count >= len(dataset):
        return dataset
    if type(dataset) is Textures:
        return Textures(count, seed=dataset.seed, size=dataset.size, device=dataset.device, offset=dataset.offset)
    if hasattr(dataset, "first"):
        return dataset.first(count)
    return First(dataset, count)


def select(dataset: Any, indices: Sequence[int], network: Any = None) -> Tensor:
    """Images ``indices`` in any order, as ``network`` is fed: float32 ``[n, c, h, w]`` in [0, 1], on the CPU.

    >>> select(Textures(), [7, 2, 7]).shape
    torch.Size([3, 3, 64, 64])
    """
    wanted = sorted(set(map(int, indices)))
    if not wanted:
        raise SpError("No image was asked for; name at least one index.")
    if wanted[0] < 0 or wanted[-1] >= len(dataset):
        wrong = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise SpError(f"{dataset.name} has images 0 to {len(dataset) - 1}; got {wrong}.")
    if type(dataset) is Textures:
        side = dataset.size if network is None else network.input_size[1]
        if SMALLEST <= side <= LARGEST and (network is None or network.input_size[2] == side):
            # All in one go is several times as fast as one by one, and the same pixels.
            numbers = torch.tensor([int(index) for index in indices]) + dataset.offset
            return fit(render(numbers, seed=dataset.seed, size=side).float() / 255, network)
    found = {index: dataset.batch(index, index + 1, network)[0][0].cpu() for index in wanted}
    return fit(torch.stack([found[int(index)] for index in indices]), network)


def fit(images: Tensor, network: Any = None) -> Tensor:
    """Images ``[n, 3, h, w]`` in as many channels as ``network`` takes: grey is the luminance, more repeat RGB.

    As :func:`sp_core.images.to_tensor` does it for pictures; images that have the right count are given back.
    """
    wanted = images.shape[1] if network is None else network.input_size[0]
    if images.shape[1] == wanted or images.shape[1] != 3:
        return images
    if wanted < 3:
        weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
        return (images * weights).sum(1, keepdim=True).expand(-1, wanted, -1, -1).contiguous()
    return images[:, torch.arange(wanted) % 3]


def open(source: Any, count: int | None = None) -> Any:
    """The data set that ``source`` names, or ``source`` itself when it is one; at most its first ``count`` images.

    Names: ``"textures"`` and ``"textures:SEED"`` (endless; 10,000 unless told), a folder or a ``.zip`` of images (a
    folder in it is a class), ``"cifar10:PATH"`` (the test part, or that which ``PATH/train`` or ``PATH/test`` names),
    an address of pictures (``s3://…``, ``gs://…``, ``file://…``), and Parquet of encoded images, as a file, a folder or
    an address.

    Raises:
        SpError: there is no such thing.

    >>> open("textures:3", count=90).name, len(open("textures:3", count=90))
    ('textures', 90)
    """
    if not isinstance(source, (str, Path)):
        return take(source, count) if count is not None else source
    from sp_core.datasets.bucket import Bucket, is_address
    from sp_core.datasets.image_table import ImageTable, is_table

    text = str(source)
    kind, _, rest = text.partition(":")
    if kind == "textures":
        if rest and not rest.lstrip("-").isdigit():
            raise SpError(f"'{text}' should be textures:SEED with a whole number as seed, such as textures:7.")
        if count is not None and count < 1:
            raise SpError(f"At least 1 image is needed; got {count}.")
        return Textures(count or 10_000, seed=int(rest or 0))
    dataset: Any
    if is_table(source):
        dataset = ImageTable(source)
    elif is_address(source):
        dataset = Bucket(text)
    elif kind == "cifar10":
        from sp_core.datasets.cifar10 import Cifar10

        dataset = Cifar10(rest)
    else:
        from sp_core.datasets.folder import Folder

        if not text or not Path(text).exists():
            raise SpError(
                f"'{text}' is not a data set: write textures, textures:SEED, cifar10:PATH, or the path of an existing "
                "folder or .zip of images."
            )
        dataset = Folder(text)
    return take(dataset, count) if count is not None else dataset
