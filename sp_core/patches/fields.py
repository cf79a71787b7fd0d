"""Receptive fields as an index keeps them, so that cutting a patch needs no network.

In ``index.json`` a field is ``{"size": [h, w], "stride": [y, x], "start": [y, x], "status": …, "note": …}`` and, where
channels differ, ``"channels": [[count, h, w, y, x], …]``: runs of channels that have the same size and start.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from sp_core.network import Network
from sp_core.receptive_field import Box, ReceptiveField, pair, receptive_fields


def fields(net: Network) -> dict[str, dict[str, Any]]:
    """The field of every layer, in the form of ``index.json``."""
    return {name: _plain(field) for name, field in receptive_fields(net).items()}


def _plain(field: ReceptiveField) -> dict[str, Any]:
    row: dict[str, Any] = {
        "size": list(pair(field.size)),
        "stride": list(pair(field.stride)),
        "start": list(pair(field.start)),
        "status": field.status,
    }
    if field.note:
        row["note"] = field.note
    if field.per_channel is not None or field.per_channel_start is not None:
        count = len(field.per_channel or field.per_channel_start or ())
        sizes = field.per_channel or (field.size,) * count
        starts = field.per_channel_start or (field.start,) * count
        every = [(*pair(size), *pair(start)) for size, start in zip(sizes, starts, strict=True)]
        row["channels"] = [[len(list(run)), *key] for key, run in groupby(every)]
    return row


def box(row: dict[str, Any], channel: int, y: int, x: int, image: tuple[int, int]) -> tuple[Box, Box]:
    """The field of the unit at (y, x) of a channel: as the layer's law says it, and clipped to the image (h, w).

    Where the law does not hold (status ``"whole image"`` or ``"unavailable"``) both are the whole image.
    """
    whole = Box(0, image[0], 0, image[1])
    if row.get("status") not in {"complete", "partial"}:
        return whole, whole
    (height, width), (top, left) = row["size"], row["start"]
    before = 0
    for count, *values in row.get("channels", []):
        if before <= channel < before + count:
            height, width, top, left = values
        before += count
    stride_y, stride_x = row["stride"]
    top, left = int(top + y * stride_y // 1), int(left + x * stride_x // 1)
    law = Box(top, top + int(height), left, left + int(width))
    return law, law.clip(*image)
