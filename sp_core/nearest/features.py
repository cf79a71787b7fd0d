"""The features of a data set on disk: ``features.json`` and one ``.safetensors`` file for every block of images.

A block is written once and never touched again; then ``features.json``, which says how many there are, takes the place
of the old one in one step. Whenever the program is killed, what ``features.json`` counts is whole. Each block holds
``images`` int64 ``[m]`` (the numbers of those that could be read), ``labels`` int64 ``[m]``, ``pixels`` uint8
``[m, c·side·side]``, and under ``layer/NAME`` the features of each layer, float32 ``[m, channels]``.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sp_core.capture import capture
from sp_core.datasets.passes import network_facts
from sp_core.disk import locked, replace
from sp_core.errors import SpError
from sp_core.nearest.approximate import Approximate
from sp_core.nearest.search import Metric
from sp_core.network import Network

SCHEMA = 1
PIXELS = "pixels"  # the name of the space of pixels
SIDE = 32  # pixels a side to which images are averaged for it ("tiny images": Torralba, Fergus & Freeman 2008)


def features_of(net: Network, images: Tensor, layers: list[str], clone: nn.Module | None = None) -> dict[str, Tensor]:
    """The feature vectors of images ``[n, c, h, w]`` in [0, 1], on the CPU: ``[n, channels]`` for each name.

    Of a layer :func:`pooled`, in float32; under ``"pixels"`` :func:`tiny`. ``clone`` is a private copy of the network,
    for a caller who has many images; one is made where it is not given.
    """
    fed = net.check_images(images)
    with torch.no_grad():
        found = capture(clone or net.clone(), net.normalise(fed), layers) if layers else {}
    return {PIXELS: tiny(images), **{name: pooled(output).cpu() for name, output in found.items()}}


def pooled(output: Tensor) -> Tensor:
    """A layer's feature vectors, float32 ``[n, channels]``: the mean of each map (global average pooling), or itself.

    They share no memory with ``output``, which the network may overwrite.
    """
    return (output.mean((2, 3)) if output.ndim == 4 else output.clone()).float()


def tiny(images: Tensor) -> Tensor:
    """Images ``[n, c, h, w]`` in [0, 1] averaged to at most 32 × 32, as whole numbers 0 to 255: uint8 ``[n, d]``."""
    size = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
    small = torch.nn.functional.adaptive_avg_pool2d(images.float().cpu(), size)
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).flatten(1)


class Features:
    """What :func:`build_features` has written; can be opened while it is still being built.

    ``images`` int64 ``[n]`` and ``labels`` int64 ``[n]`` (-1 where unknown): the images that went in; ``spaces``:
    ``"pixels"`` and the layers in order of execution; ``classes``; ``done`` and ``total``: how far the building is;
    ``network`` and ``dataset``: the entries of ``features.json``.

    Raises:
        SpError: there is nothing in ``folder``, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        header = read_header(folder)
        if header is None:
            raise SpError(f"{folder} holds no features (no features.json); build them with sp.build_features.")
        self.network: dict[str, Any] = header["network"]
        self.dataset: dict[str, Any] = header["dataset"]
        self.classes: tuple[str, ...] = tuple(header["dataset"]["classes"])
        self.spaces: tuple[str, ...] = (PIXELS, *header["layers"])
        self.layers: tuple[str, ...] = tuple(header["layers"])
        self.done: int = header["done"]
        self.total: int = header["dataset"]["count"]
        self._blocks = [_read(self.folder / name) for name in header["blocks"]]
        self.images = self._join("images")
        self.labels = self._join("labels")
        self._of = cache(self._vectors)
        self.norms = cache(self._norms)
        self.cells = cache(self._cells)

    def vectors(self, space: str) -> Tensor:
        """float32 ``[n, d]``: the images in one of ``spaces``. Raises SpError where there is no such space."""
        if space not in self.spaces:
            raise SpError(f"The features are of {', '.join(self.spaces)}; got '{space}'. Build them with that layer.")
        return self._of(space)

    def row(self, image: int) -> int:
        """Which row image ``image`` of the data set is. Raises SpError where it is not among them."""
        at = (self.images == image).nonzero()
        if not len(at):
            raise SpError(
                f"Image {image} is not among the {len(self.images)} of these features (0 to {self.done - 1})."
            )
        return int(at[0])

    def fits(self, net: Network) -> bool:
        """Whether they are of these weights, fed like this."""
        return self.network == network_facts(net)

    def _vectors(self, space: str) -> Tensor:
        return self._join(PIXELS if space == PIXELS else f"layer/{space}").float()

    def _norms(self, space: str) -> Tensor:
        return torch.linalg.vector_norm(self.vectors(space), dim=1)

    def _cells(self, space: str, metric: Metric) -> Approximate:
        return Approximate(self.vectors(space), metric)

    def _join(self, name: str) -> Tensor:
        try:
            return torch.cat([block[name] for block in self._blocks])
        except KeyError as error:
            raise SpError(
                f"The features in {self.folder} are damaged ({error} is missing); build them again."
            ) from error


def read_header(folder: str | Path) -> dict[str, Any] | None:
    """The content of ``features.json``; None when there is none. Raises SpError when it is not one of ours."""
    path = Path(folder) / "features.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["schema"] != SCHEMA:
            raise SpError(f"{path} has format {header['schema']}, this program reads {SCHEMA}; build it again.")
        return header
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpError(f"{path} is not the description of features ({error}); choose another folder.") from error


def write_block(folder: Path, header: dict[str, Any], arrays: dict[str, Tensor], stop: int) -> None:
    """Add the block that ends before image ``stop``; ``header`` is brought up to date."""
    name, next_one = f"block-{header['done']:08d}-{stop:08d}.safetensors", f"block-{stop:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            replace(folder / name, safetensors.torch.save({key: value.contiguous() for key, value in arrays.items()}))
            header["done"], header["blocks"] = stop, [*header["blocks"], name]
            text = json.dumps(header, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
            replace(folder / "features.json", text.encode())
            # Blocks that the end of a data set cut short before it grew, of other batches, and what a kill left.
            past = [path for path in folder.glob("block-*") if path.name < next_one]
            for path in [*past, *folder.glob(".*.part")]:
                if path.name not in header["blocks"]:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise SpError(
            f"The features cannot be written to {folder} ({error.strerror or error}); free or name a folder."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise SpError(f"The features in {path.parent} are damaged ({error}); build them again.") from error


def cache_folder(net: Network, source: str, layers: tuple[str, ...]) -> Path:
    """Where the features of ``net`` over the data set named ``source`` are kept: below ``SP_CACHE``, or in the home."""
    root = Path(os.environ.get("SP_CACHE") or Path.home() / ".cache" / "structural-priors")
    known = json.dumps([network_facts(net), source, list(layers)])
    return root / "features" / f"{net.fingerprint}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
