"""One attribution map as a picture, and what its colours mean."""

from __future__ import annotations

from typing import Any

from PIL import Image

from sp_core.figures import maps

OVERLAID = {"grad_cam", "occlusion"}  # one value a pixel, and coarse: it says something only over the image


def shown(method: str, view: str) -> str:
    """The view that a method's map is drawn in: an overlay is always signed."""
    return "signed" if method in OVERLAID else view


def limit(method: str, values: Any, view: str) -> float:
    """The value at the end of the scale that the map ``[c, h, w]`` would have alone."""
    return maps.own_limit(values, shown(method, view))


def picture(crop: Image.Image, method: str, values: Any, view: str, end: float | None = None) -> Image.Image:
    """The map ``[c, h, w]``, or laid over the ``crop``; ``end`` of the scale in place of its own."""
    if method in OVERLAID:
        return maps.overlay(crop, values, end)
    return maps.picture(values, view, None if end is None else maps.Scale(end))


def ends(method: str, values: Any, view: str, end: float | None = None) -> str:
    """What the colours of :func:`picture` mean, in words."""
    end = limit(method, values, view) if end is None else end
    if method not in OVERLAID:
        return maps.ends(view, maps.Scale(end))
    blue = f" · blue -{maps.short(end)}" if values.min() < 0 else ""
    return f"colourless 0 · red {maps.short(end)}{blue}"
