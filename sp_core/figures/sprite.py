"""One picture for a whole grid of tiles. 512 image elements in a page take seconds; one sprite takes a tenth of one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, eq=False)
class Sprite:
    """A grid of equal tiles in one RGBA picture at native resolution, with transparent gaps between the tiles.

    Attributes:
        image: the picture; tile ``i`` is in row ``i // columns``, column ``i % columns``.
        columns: tiles in a row.
        tile: (height, width) of a tile in pixels.
        gap: transparent pixels between tiles.
        count: how many tiles there are; the last row may be short.
    """

    image: Image.Image
    columns: int
    tile: tuple[int, int]
    gap: int
    count: int

    @property
    def rows(self) -> int:
        """Rows of tiles, the last of which may be short."""
        return math.ceil(self.count / self.columns)

    def box(self, index: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of tile ``index`` in pixels of the picture."""
        row, column = divmod(index, self.columns)
        left, top = column * (self.tile[1] + self.gap), row * (self.tile[0] + self.gap)
        return left, top, left + self.tile[1], top + self.tile[0]

    def cut(self, index: int) -> Image.Image:
        """Tile ``index`` alone, RGB."""
        return self.image.crop(self.box(index)).convert("RGB")


def make_sprite(tiles: NDArray[np.uint8], columns: int | None = None, gap: int = 1) -> Sprite:
    """Lay tiles ``uint8 [n, h, w, 3]`` (or ``[n, h, w]`` grey) out in a grid, as wide as it is high unless told.

    >>> make_sprite(np.zeros((6, 4, 4, 3), np.uint8), columns=3, gap=1).image.size
    (14, 9)
    """
    if tiles.ndim == 3:
        tiles = np.repeat(tiles[..., None], 3, axis=3)
    count, height, width, _ = tiles.shape
    columns = columns or max(1, min(count, math.ceil(math.sqrt(count * height / width * 1.6))))
    rows = max(1, math.ceil(count / columns))
    sheet = np.zeros((rows, height + gap, columns, width + gap, 4), dtype=np.uint8)
    index = np.arange(count)
    sheet[index // columns, :height, index % columns, :width, :3] = tiles
    sheet[index // columns, :height, index % columns, :width, 3] = 255
    flat = sheet.reshape(rows * (height + gap), columns * (width + gap), 4)
    flat = flat[: flat.shape[0] - gap, : flat.shape[1] - gap]
    return Sprite(Image.fromarray(np.ascontiguousarray(flat)), columns, (height, width), gap, count)
