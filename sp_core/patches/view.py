"""Patches as pictures: cut to the receptive field, and the same patches under guided backprop.

A tile is a window of what the network sees. Inside the unit's receptive field it shows the image; where the field
reaches outside the image (the unit saw padding there) it is hatched; what lies in the image but outside the field is
faded to grey. All tiles of a call have the same size: that of the largest field, with smaller ones in the middle. A
field larger than the image is not drawn to its full extent, which would be mostly hatching: the window is then
the whole image with a margin of an eighth of its side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sp_core.datasets.source import select
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.patches.index import Patch

MARGIN = 8  # the margin around an image that is smaller than the field: side / 8
BATCH = 16  # images under guided backprop at once
HATCH = (112, 150)  # two greys that differ from one another and from a page, light or dark
FADE = (128, 0.8)  # grey, and how much of it outside the field
STRIPE = 6  # pixels of the tile from stripe to stripe


@dataclass(frozen=True)
class Window:
    """The part of the network's input that a tile shows: rows ``top …``, columns ``left …``; may reach outside."""

    top: int
    left: int
    height: int
    width: int


def windows(patches: Sequence[Patch], image: tuple[int, int]) -> list[Window]:
    """The window of each patch, all of one size, for images of (height, width)."""
    height = max([1, *(patch.field.height for patch in patches)])
    width = max([1, *(patch.field.width for patch in patches)])
    if height > image[0] or width > image[1]:
        margin = max(image) // MARGIN
        return [Window(-margin, -margin, image[0] + 2 * margin, image[1] + 2 * margin)] * len(patches)
    return [
        Window(
            patch.field.y0 - (height - patch.field.height) // 2,
            patch.field.x0 - (width - patch.field.width) // 2,
            height,
            width,
        )
        for patch in patches
    ]


def cut(dataset: Any, patches: Sequence[Patch], network: Any, size: int | None = None) -> NDArray[np.uint8]:
    """Tiles ``uint8 [n, h, w, 3]`` of the patches, cut from what ``network`` sees of the images of ``dataset``.

    ``network`` may be the index's ``feed``: no weights are needed to cut.
    ``size`` is the longest side a tile may have: small windows are enlarged by the largest whole number that fits
    (pixels stay squares), large ones reduced. Without it a pixel is a pixel.
    """
    return tiles(see(dataset, patches, network), patches, size)


def see(dataset: Any, patches: Sequence[Patch], network: Any) -> NDArray[np.uint8]:
    """What the network sees of each patch's image: ``uint8 [n, h, w, 3]``; one channel as grey, of more the first 3."""
    images = select(dataset, [patch.image for patch in patches], network)
    planes = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    return (planes.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def signals(net: Network, dataset: Any, patches: Sequence[Patch], rule: str = "guided") -> Tensor:
    """The signal of each patch's unit, sent back to its image: float32 ``[n, c, h, w]``, signed; a batch at a time.

    Zeros outside the receptive field. See :func:`sp_core.backprop` for ``rule`` and what it raises.
    """
    from sp_core.rules import backprop

    if not patches:
        raise SpError("No patch was asked for; name at least one.")
    parts = []
    for first in range(0, len(patches), BATCH):
        some = patches[first : first + BATCH]
        images = select(dataset, [patch.image for patch in some], net)
        parts.append(backprop(net, images, [patch.unit for patch in some], rule).detach().float().cpu())
    return torch.cat(parts)


def paint(signal: Tensor) -> NDArray[np.uint8]:
    """Signals ``[n, c, h, w]`` as pictures ``uint8 [n, h, w, 3]``: grey is 0; each is scaled by its largest magnitude.

    An image that got no signal at all (the unit is dead there) is all grey. Colours are those of the input's channels,
    as in Springenberg et al. 2015, figure 3.
    """
    planes = signal[:, :3] if signal.shape[1] >= 3 else signal.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    largest = planes.abs().amax((1, 2, 3), keepdim=True)
    scaled = 0.5 + 0.5 * planes / torch.where(largest > 0, largest, torch.ones_like(largest))
    return (scaled * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def tiles(pictures: NDArray[np.uint8], patches: Sequence[Patch], size: int | None = None) -> NDArray[np.uint8]:
    """Tiles ``uint8 [n, h, w, 3]`` from pictures ``uint8 [n, H, W, 3]`` of the network's input size, one a patch."""
    if not patches:
        raise SpError("No patch was asked for; name at least one.")
    found = []
    for picture, patch, window in zip(pictures, patches, windows(patches, pictures.shape[1:3]), strict=True):
        rows, columns = window.top + np.arange(window.height), window.left + np.arange(window.width)
        inside = _mask(rows, columns, 0, picture.shape[0], 0, picture.shape[1])
        seen = _mask(rows, columns, patch.field.y0, patch.field.y1, patch.field.x0, patch.field.x1)
        # Beyond its border the image is continued, so that reducing the tile mixes no foreign colour in.
        pixels = picture[rows.clip(0, picture.shape[0] - 1)][:, columns.clip(0, picture.shape[1] - 1)]
        found.append(_compose(*(_scaled(array, size) for array in (pixels, inside, seen))))
    return np.stack(found)


def _mask(rows: Any, columns: Any, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
    return (((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))[None, :]).astype(np.uint8) * 255


def _scaled(array: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    longest = max(array.shape[:2])
    if size is None or longest == size:
        return array
    if longest < size:
        times = size // longest
        return array.repeat(times, 0).repeat(times, 1)
    height, width = (max(1, round(side * size / longest)) for side in array.shape[:2])
    smooth = Image.Resampling.BILINEAR if array.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).resize((width, height), smooth))


def _compose(pixels: NDArray[np.uint8], inside: NDArray[np.uint8], seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey, share = FADE
    faded = (pixels * (1 - share) + grey * share).astype(np.uint8)
    tile = np.where(seen[..., None] > 0, pixels, faded)
    y, x = np.indices(inside.shape)
    hatch = np.where((x + y) % STRIPE < STRIPE // 2, *HATCH).astype(np.uint8)
    return np.where(inside[..., None] > 0, tile, hatch[..., None])
