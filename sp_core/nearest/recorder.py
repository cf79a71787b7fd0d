"""Features on their way to the disk, in a pass of their own or in one that is made for something else.

Whoever makes the forward passes, the images are cut into the same batches (:mod:`sp_core.datasets.passes`), and a block
is written when its last batch is there. So the files have the same bytes, and what is lost by a kill is a block.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.datasets.passes import block_size, read
from sp_core.errors import SpError
from sp_core.nearest.features import PIXELS, SIDE, features_of, pooled, read_header, tiny, write_block
from sp_core.nearest.plan import check_same
from sp_core.network import Network
from sp_core.trace import LayerNames, layer_name, single


class Recorder:
    """Goes on with the features in ``folder`` that ``header`` (:func:`sp_core.nearest.plan.describe`) is of.

    Either it makes the forward passes (:meth:`catch_up`), or it listens to another's: :meth:`watch` its copy of the
    network once, :meth:`hear` each batch after its forward pass, :meth:`write` after each block.

    Args:
        net: the network; it is not touched.
        dataset: see :mod:`sp_core.datasets.source`.
        folder: where the features are, or go.
        header: is brought up to date.
        batch: images a forward pass; all passes over the features must have the same.
        resume: False throws away what ``folder`` holds.

    Raises:
        SpError: the folder holds features of something else.
    """

    def __init__(
        self, net: Network, dataset: Any, folder: str | Path, header: dict[str, Any], batch: int, resume: bool
    ) -> None:
        self.net, self.dataset, self.folder, self.header, self.batch = net, dataset, Path(folder), header, batch
        self.total, self.block = len(dataset), block_size(batch)
        self.layers: list[str] = header["layers"]
        self._rows: list[dict[str, Tensor]] = []  # of the batches of the block at work
        self._heard: dict[str, Tensor] = {}  # of the forward pass at work
        old = read_header(self.folder)
        if old is not None and not resume:
            shutil.rmtree(self.folder)
        elif old is not None:
            check_same(old, header, dataset, self.folder)
            # A block that the end of the data set cut short is made again when there are more images.
            ends = [int(name.split("-")[2].split(".")[0]) for name in old["blocks"]]
            whole = [i for i, end in enumerate(ends, start=1) if end % self.block == 0 or end == self.total]
            kept = max(whole, default=0)
            header |= {"blocks": old["blocks"][:kept], "done": ends[kept - 1] if kept else 0}

    @property
    def done(self) -> int:
        """One past the last image whose features are on disk: all images, or whole blocks."""
        return int(self.header["done"])

    def catch_up(self, until: int) -> Iterator[int]:
        """Make the missing blocks that end at or before image ``until``; yields ``done`` after each."""
        clone = self.net.clone()
        while self.done < self.total and (end := min(self.done + self.block, self.total)) <= until:
            pixels, images, labels, _ = read(self.net, self.dataset, self.done, end)
            for start in range(self.done, end, self.batch):
                of = (images >= start) & (images < start + self.batch)
                if of.any():
                    self._keep(images[of], labels[of], features_of(self.net, pixels[of], self.layers, clone))
            self.write(end)
            yield self.done

    def watch(self, clone: nn.Module) -> None:
        """Hear what ``clone``, a private copy of the network, puts out from now on."""
        names = LayerNames(clone)

        def begin(_part: nn.Module, _inputs: Any) -> None:
            names.calls.clear()
            self._heard.clear()

        def note(part: nn.Module, _inputs: Any, output: Any) -> None:
            name, tensor = layer_name(*names.next(part)), single(output)
            if name in self.layers and tensor is not None:
                self._heard[name] = pooled(tensor)

        clone.register_forward_pre_hook(begin)
        paths = {name.split("#")[0] for name in self.layers}
        for name, part in clone.named_modules():
            if name in paths:
                part.register_forward_hook(note)

    def hear(self, pixels: Tensor, images: Tensor, labels: Tensor) -> None:
        """Keep the features of a batch that has just gone through the watched copy, unless they are on disk.

        ``pixels`` ``[n, c, h, w]`` in [0, 1], ``images`` and ``labels`` ``[n]`` as :func:`read` gives them.
        """
        if not len(images) or int(images[0]) < self.done:
            return
        missing = [name for name in self.layers if name not in self._heard]
        if missing:
            raise SpError(f"{len(missing)} layers did not run on this input: {', '.join(missing[:5])}.")
        self._keep(images, labels, {PIXELS: tiny(pixels), **{name: v.cpu() for name, v in self._heard.items()}})

    def _keep(self, images: Tensor, labels: Tensor, found: dict[str, Tensor]) -> None:
        vectors = {f"layer/{name}": found[name] for name in self.layers}
        self._rows.append({"images": images, "labels": labels.long(), PIXELS: found[PIXELS], **vectors})

    def write(self, stop: int) -> None:
        """Put the block on disk whose last image is ``stop - 1``; does nothing in the middle of a block.

        Raises:
            SpError: a layer gives values that are not numbers, or the folder cannot be written to.
        """
        if stop <= self.done or (stop % self.block and stop != self.total):
            return
        parts = [*self._rows, self._nothing()]
        arrays = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        for name in self.layers:
            if not bool(arrays[f"layer/{name}"].isfinite().all()):
                raise SpError(
                    f"Layer {name} of {self.net.name} gives values that are not numbers on images {self.done} to "
                    f"{stop - 1}: the weights have diverged or the file is damaged; load another checkpoint."
                )
        write_block(self.folder, self.header, arrays, stop)
        self._rows = []

    def _nothing(self) -> dict[str, Tensor]:
        """The arrays of no image: they have their widths even where not one picture of a block could be read."""
        channels, height, width = self.net.input_size
        return {
            "images": torch.zeros(0, dtype=torch.int64),
            "labels": torch.zeros(0, dtype=torch.int64),
            PIXELS: torch.zeros(0, channels * min(SIDE, height) * min(SIDE, width), dtype=torch.uint8),
            **{f"layer/{name}": torch.zeros(0, self.net.layer(name).channels) for name in self.layers},
        }
