"""One pass over a data set: the features of the chosen layers, and the pixels, of every image, block by block."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sp_core.datasets.source import fit, take
from sp_core.errors import SpError
from sp_core.nearest.features import BLOCK, SCHEMA, features_of, network_facts, read_header, write_block
from sp_core.network import Network
from sp_core.trace import Layer


@dataclass(frozen=True)
class Progress:
    """How far the building is.

    Attributes:
        done: images behind us, those of earlier runs too; they are on disk.
        total: images there will be.
        seconds: since this run began.
        fresh: images that this run has looked at.
    """

    done: int
    total: int
    seconds: float
    fresh: int


def default_layers(net: Network, count: int = 6) -> tuple[str, ...]:
    """At most ``count`` layers spread over the depth, the last one among them.

    Of the outermost modules that put out maps or a vector, without those that only move values; where there are fewer
    than three of them, of all layers with weights.
    """
    usable = [layer for layer in net.layers if layer.is_map or len(layer.output_shape) == 1]
    blocks = [layer for layer in usable if not layer.leaf or _weighs(net, layer)]
    outer = [layer for layer in blocks if layer.name.count(".") == 0]
    names = [layer.name for layer in (outer if len(outer) >= 3 and len(outer) > len(blocks) // 8 else blocks)]
    if not names:
        raise SpError(f"{net.name} has no layer whose output is a map or a vector, so it has no features.")
    count = min(count, len(names))
    at = [round((i + 1) * len(names) / count) - 1 for i in range(count)]
    return tuple(names[i] for i in at)


def _weighs(net: Network, layer: Layer) -> bool:
    part = net.module.get_submodule(layer.module)
    return any(parameter.ndim > 1 for parameter in part.parameters())


def build_features(
    net: Network, dataset: Any, folder: str | Path, layers: Iterable[str] | None = None, *, resume: bool = True
) -> Iterator[Progress]:
    """Look at every image of ``dataset`` once and keep its features in ``layers`` and its pixels.

    The generator yields after every block of 64 images, which is then on disk. It can be left at any time, or killed:
    called again it goes on where it was and ends with the same bytes. When the data set has grown at its end, only the
    new images are looked at. What is kept: :mod:`sp_core.nearest.features`. Images that cannot be read are left out.

    Args:
        net: the network; it is not touched.
        dataset: see :mod:`sp_core.datasets.source`; ``sp.datasets.open`` makes one from a name.
        folder: where the features are, or go. It belongs to one network, data set and choice of layers.
        layers: names; by default at most six spread over the depth.
        resume: False throws away what ``folder`` holds.

    Raises:
        SpError: the folder holds features of something else, a layer does not exist, or a layer gives NaN.

    >>> import tempfile, sp_core as sp
    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), input_size=(3, 32, 32))
    >>> images = sp.datasets.open("textures", count=20)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     last = list(sp.build_features(net, images, folder, ["1"]))[-1]
    ...     found = sp.neighbours(folder, 7, "1", k=3)
    >>> last.done, len(found.images), 7 in found.images
    (20, 3, False)
    """
    names = list(default_layers(net) if layers is None else layers)
    for name in names:
        layer = net.layer(name)
        if not layer.is_map and len(layer.output_shape) != 1:
            raise SpError(f"Layer {name} gives {list(layer.output_shape)}, neither maps nor a vector; choose another.")
    header = {
        "schema": SCHEMA,
        "network": network_facts(net),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "count": len(dataset),
            "classes": list(dataset.classes),
        },
        "layers": names,
        "done": 0,
        "blocks": [],
    }
    home = Path(folder)
    old = read_header(home)
    if old is not None and not resume:
        shutil.rmtree(home)
        old = None
    if old is not None:
        _check_same(old, header, dataset, home)
        # A block that was cut short by the end of the data set is made again when there are more images.
        whole = old["done"] == len(dataset) or old["done"] % BLOCK == 0
        kept = old["blocks"] if whole else old["blocks"][:-1]
        header |= {"blocks": kept, "done": old["done"] if whole else old["done"] // BLOCK * BLOCK}
    return _run(net, dataset, home, header)


def _check_same(old: dict[str, Any], new: dict[str, Any], dataset: Any, folder: Path) -> None:
    for part in ("network", "layers"):
        if old[part] != new[part]:
            raise SpError(f"{folder} holds features of another {part}; name another folder, or start over.")
    was, now = old["dataset"], new["dataset"]
    grown = was["count"] < now["count"] and take(dataset, was["count"]).fingerprint == was["fingerprint"]
    if was["fingerprint"] != now["fingerprint"] and not grown:
        raise SpError(
            f"{folder} holds features of another data set ({was['count']} images of {was['name']}); name another "
            "folder, or start over."
        )


def _run(net: Network, dataset: Any, folder: Path, header: dict[str, Any]) -> Iterator[Progress]:
    began, total, fresh = time.monotonic(), len(dataset), 0
    if header["done"] >= total:
        yield Progress(total, total, 0.0, 0)
    while header["done"] < total:
        start = header["done"]
        stop = min(start + BLOCK, total)
        write_block(folder, header, _block(net, dataset, start, stop, header["layers"]), stop)
        fresh += stop - start
        yield Progress(stop, total, time.monotonic() - began, fresh)


def _block(net: Network, dataset: Any, start: int, stop: int, layers: list[str]) -> dict[str, Tensor]:
    try:
        pixels, labels = dataset.batch(start, stop, net)
        numbers = list(range(start, stop))
    except SpError:  # one damaged picture must not end a pass over many
        parts = []
        for image in range(start, stop):
            try:
                parts.append((image, *dataset.batch(image, image + 1, net)))
            except SpError:
                continue
        numbers = [part[0] for part in parts]
        pixels = torch.cat([part[1] for part in parts]) if parts else torch.zeros(0, *net.input_size)
        labels = torch.cat([part[2] for part in parts]) if parts else torch.zeros(0, dtype=torch.int64)
    pixels = fit(pixels, net)
    step = 8 if max(net.input_size[1:]) > 96 else BLOCK  # few large images: their maps stay in the processor's cache
    # A block without a readable image still runs once, for the widths of its empty arrays.
    rows = pixels if len(pixels) else torch.zeros(1, *net.input_size)
    made = [features_of(net, rows[i : i + step], layers) for i in range(0, len(rows), step)]
    found = {name: torch.cat([part[name] for part in made])[: len(pixels)] for name in made[0]}
    for name in layers:
        if not bool(found[name].isfinite().all()):
            raise SpError(
                f"Layer {name} of {net.name} gives values that are not numbers on images {start} to {stop - 1}: the "
                "weights have diverged or the file is damaged; load another checkpoint."
            )
    arrays = {"images": torch.tensor(numbers, dtype=torch.int64), "labels": labels.cpu().to(torch.int64)}
    arrays["pixels"] = found.pop("pixels")
    return arrays | {f"layer/{name}": found[name] for name in layers}
