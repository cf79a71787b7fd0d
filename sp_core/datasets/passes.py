"""What every pass over a data set has in common: batches, blocks, pictures that cannot be read, and whose it is.

Two passes that cut their images alike put out the same bits, so the rule stands in one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sp_core.datasets.source import fit
from sp_core.errors import SpError
from sp_core.network import Network

BLOCK = 64  # images that are read, and whose answers are kept, at once
GPU_BATCH = 128  # images a forward pass on a GPU
PIECE = 16  # images that one thread reads at a time
AHEAD = 2  # pieces that are read, or wait to be used, for each thread


def batch_size(net: Network) -> int:
    """Images a forward pass, unless a person chooses: few large ones.

    Maps that fit the processor's cache are reduced, and convolved, faster.

    >>> batch_size(Network(torch.nn.Conv2d(3, 4, 3), input_size=(3, 32, 32)))
    32
    """
    if net.device.type != "cpu":
        return GPU_BATCH
    return 4 if max(net.input_size[1:]) > 96 else 32


def block_size(batch: int) -> int:
    """Images a block: whole batches, as many as come to 64 images at most, and at least one.

    >>> [block_size(batch) for batch in (4, 32, 48, 128)]
    [64, 64, 48, 128]
    """
    return max(BLOCK // batch, 1) * batch


def read(net: Network, dataset: Any, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Images ``start … stop - 1`` as ``net`` is fed, without those that cannot be read.

    Returns:
        Pixels float32 ``[n, c, h, w]`` in [0, 1], numbers int64 ``[n]`` and labels ``[n]`` on the CPU of those that
        could be read; the numbers of the others.

    >>> from sp_core.datasets.textures import Textures
    >>> pixels, images, labels, bad = read(Network(torch.nn.Conv2d(3, 4, 3), input_size=(3, 32, 32)), Textures(9), 4, 7)
    >>> pixels.shape, images.tolist(), bad
    (torch.Size([3, 3, 32, 32]), [4, 5, 6], [])
    """
    try:
        pixels, labels = dataset.batch(start, stop, net)
        return fit(pixels, net), torch.arange(start, stop), labels.cpu(), []
    except SpError:  # one damaged picture must not end a pass over a million
        parts, images, bad = [], [], []
        for image in range(start, stop):
            try:
                parts.append(dataset.batch(image, image + 1, net))
                images.append(image)
            except SpError:
                bad.append(image)
        if not parts:
            empty = torch.zeros(0, dtype=torch.int64)
            return torch.zeros(0, *net.input_size), empty, empty, bad
        pixels = fit(torch.cat([part[0] for part in parts]), net)
        return pixels, torch.tensor(images), torch.cat([part[1] for part in parts]).cpu(), bad


@dataclass(frozen=True)
class Block:
    """Images that are made, and counted, at once: pixels, numbers and labels of those that could be read; the others'
    numbers; and one past the last number.
    """

    pixels: Tensor
    images: Tensor
    labels: Tensor
    bad: list[int]
    end: int


def blocks(net: Network, dataset: Any, done: int, stop: int, grid: int) -> Iterator[Block]:
    """The images from ``done`` to ``stop``, cut at multiples of a block. The first one is short: a picture at once.

    Beside a GPU the processor reads ahead (:func:`ahead`); without one it has the network to run.
    """
    spans = _spans(done, stop, grid, block_size(grid))
    if net.device.type != "cpu":
        yield from ahead(net, dataset, spans)
        return
    for first, end in spans:
        yield Block(*read(net, dataset, first, end), end)


def ahead(net: Network, dataset: Any, spans: Iterable[tuple[int, int]]) -> Iterator[Block]:
    """The blocks of ``spans`` (first image, one past the last), read by as many threads as torch has."""
    readers = torch.get_num_threads()
    pool = ThreadPoolExecutor(readers)
    waiting: deque[tuple[int, list[Future[Any]]]] = deque()
    try:
        for start, end in spans:
            pieces = [(first, min(first + PIECE, end)) for first in range(start, end, PIECE)]
            waiting.append((end, [pool.submit(read, net, dataset, *piece) for piece in pieces]))
            while sum(len(parts) for _, parts in waiting) > AHEAD * readers:
                yield _joined(*waiting.popleft())
        while waiting:
            yield _joined(*waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _spans(done: int, stop: int, grid: int, block: int) -> Iterator[tuple[int, int]]:
    end = min((done // grid + 1) * grid, stop)
    while done < stop:
        yield done, end
        done, end = end, min((end // block + 1) * block, stop)


def _joined(end: int, parts: list[Future[Any]]) -> Block:
    pixels, images, labels, bad = zip(*(part.result() for part in parts), strict=True)
    return Block(torch.cat(pixels), torch.cat(images), torch.cat(labels), list(chain(*bad)), end)


def network_facts(net: Network) -> dict[str, Any]:
    """What of a network its answers depend on, as plain values for the disk: weights and feeding.

    >>> network_facts(Network(torch.nn.Conv2d(3, 4, 3), "tiny", (3, 32, 32), mean=(0.5, 0.5, 0.5)))["mean"]
    [0.5, 0.5, 0.5]
    """
    return {
        "name": net.name,
        "architecture": net.architecture,
        "fingerprint": net.fingerprint,
        "input": list(net.input_size),
        "mean": list(map(float, net.mean)) if net.mean is not None else None,
        "std": list(map(float, net.std)) if net.std is not None else None,
        "resize": net.resize,
    }
