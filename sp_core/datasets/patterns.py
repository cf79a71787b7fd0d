"""The eighteen patterns: each a function of a :class:`Canvas` that says how much ink lies at each pixel.

A pattern is ``(Canvas) -> (ink, accent)``, both float32 ``[n, h, w]`` in [0, 1]: ``ink`` goes from the background
colour (0) to the foreground colour (1), ``accent`` from there to the third colour of the palette. Coordinates are
continuous and measured in periods of the pattern, so that the same picture comes out at every resolution; the pixel
size enters only as the least width of an edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TABLE = 16  # random tables of cells repeat after 16 × 16 cells: more than any image shows


@dataclass(frozen=True)
class Canvas:
    """What a pattern is drawn on: n images of one class, h × w pixels.

    ``u``, ``v``: pattern coordinates in periods, ``[n, h, w]``, already rotated, sheared and warped.
    ``noise``: four octaves of smooth noise in about [-1, 1], coarse to fine, ``[4, n, h, w]``.
    ``table``: three random numbers in [0, 1) for each of TABLE × TABLE cells, ``[3, n, TABLE * TABLE]``.
    ``frequency``: periods across the image; ``pixel``: the size of a pixel in periods; both ``[n, 1, 1]``.
    ``soft``: the width of an edge in periods, ``[n, 1, 1]``.
    ``shape``, ``style``: two free choices in [0, 1) that a pattern may use as it likes, ``[n, 1, 1]``.
    """

    u: Tensor
    v: Tensor
    noise: Tensor
    table: Tensor
    frequency: Tensor
    pixel: Tensor
    soft: Tensor
    shape: Tensor
    style: Tensor

    def edge(self, distance: Tensor, scale: float = 1.0) -> Tensor:
        """1 where ``distance`` (in periods) is positive, 0 where negative, smooth across ``scale`` edge widths."""
        width = scale * torch.maximum(self.soft, 1.25 * self.pixel)
        x = (distance / width + 0.5).clamp(0, 1)
        return x * x * (3 - 2 * x)

    def look_up(self, channel: int, i: Tensor, j: Tensor) -> Tensor:
        """The random number of cell (i, j) of each image, ``[n, h, w]``; i and j are whole floats."""
        cell = (i.remainder(TABLE) * TABLE + j.remainder(TABLE)).to(torch.int64)
        return self.table[channel].gather(1, cell.flatten(1)).view(cell.shape)


Pattern = Callable[[Canvas], tuple[Tensor, Tensor]]


def _triangle(x: Tensor) -> Tensor:
    """Triangle wave of period 1: 0 at whole numbers, 0.5 half-way between."""
    return (x - x.round()).abs()


def _centred(x: Tensor) -> Tensor:
    """Offset from the middle of the cell, in [-0.5, 0.5)."""
    return x - x.floor() - 0.5


def _stripes(canvas: Canvas, u: Tensor) -> tuple[Tensor, Tensor]:
    """Stripes of period 1 in ``u``, the duty cycle between 0.38 and 0.62."""
    ink = canvas.edge(_triangle(u) - (0.19 + 0.12 * canvas.shape))
    return ink, torch.zeros_like(u)


def striped(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Straight parallel stripes."""
    return _stripes(canvas, canvas.u)


def waved(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Stripes that swing like a sine, about as wide as two of them."""
    swing = (0.45 + 0.35 * canvas.style) * torch.sin(2 * math.pi * 0.55 * canvas.v)
    return _stripes(canvas, canvas.u + swing)


def zigzagged(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Stripes with sharp corners (chevrons)."""
    swing = (2.4 + 1.2 * canvas.style) * _triangle(0.55 * canvas.v)
    return _stripes(canvas, canvas.u + swing)


def checkered(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """A chessboard: two squares to a period."""
    a, b = _triangle(canvas.u) - 0.25, _triangle(canvas.v) - 0.25
    ink_a, ink_b = canvas.edge(a), canvas.edge(b)
    return ink_a + ink_b - 2 * ink_a * ink_b, torch.zeros_like(a)


def dotted(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Equal flat dots on a square lattice or, half of the time, with every other row moved by half."""
    stagger = 0.5 * (canvas.style < 0.5) * canvas.v.floor().remainder(2)
    radius = torch.hypot(_centred(canvas.u + stagger), _centred(canvas.v))
    return canvas.edge(0.22 + 0.1 * canvas.shape - radius), torch.zeros_like(radius)


def grid(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Two families of straight lines that cross at about a right angle."""
    distance = torch.minimum(_triangle(canvas.u), _triangle(canvas.v))
    return canvas.edge(0.08 + 0.06 * canvas.shape - distance), torch.zeros_like(distance)


def _polar(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Radius (in periods) and angle (in turns) about the middle of each cell of the lattice."""
    x, y = _centred(canvas.u), _centred(canvas.v)
    return torch.hypot(x, y), torch.atan2(y, x) / (2 * math.pi)


def ringed(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Concentric rings about the points of a coarse lattice."""
    radius, _ = _polar(canvas)
    rings = 3.5 + 2.5 * canvas.style
    ink = canvas.edge((_triangle(rings * radius) - (0.2 + 0.1 * canvas.shape)) / rings)
    return ink, torch.zeros_like(radius)


def spiralled(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Two- or three-armed spirals about the points of a coarse lattice, turning either way."""
    radius, turn = _polar(canvas)
    arms = torch.where(canvas.shape < 0.5, 2.0, 3.0) * torch.where(canvas.style < 0.5, -1.0, 1.0)
    rings = 3.0 + 1.5 * (2 * canvas.style).frac()
    ink = canvas.edge((_triangle(rings * radius + arms * turn) - 0.25) / rings)
    return ink, torch.zeros_like(radius)


def _nearest(canvas: Canvas, u: Tensor, v: Tensor, jitter: float) -> tuple[Tensor, Tensor, Tensor]:
    """Voronoi cells of a jittered lattice: the nearest point's shade, its distance, and the distance to the border.

    Worley, "A cellular texture basis function", SIGGRAPH 1996. The border lies half-way between the two nearest
    points, at (d₂² - d₁²) / (2 · |p₂ - p₁|) from here.
    """
    i, j = u.floor(), v.floor()
    far = torch.full_like(u, 1e3)
    first, second = far, far
    x1 = y1 = x2 = y2 = shade = torch.zeros_like(u)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            x = i + di - u + 0.5 + jitter * (canvas.look_up(0, i + di, j + dj) - 0.5)
            y = j + dj - v + 0.5 + jitter * (canvas.look_up(1, i + di, j + dj) - 0.5)
            square = x * x + y * y
            nearer, next_ = square < first, square < second
            x2, y2 = (torch.where(nearer, a, torch.where(next_, b, c)) for a, b, c in ((x1, x, x2), (y1, y, y2)))
            second = torch.minimum(torch.maximum(square, first), second)
            first = torch.minimum(square, first)
            x1, y1 = torch.where(nearer, x, x1), torch.where(nearer, y, y1)
            shade = torch.where(nearer, canvas.look_up(2, i + di, j + dj), shade)
    border = (second - first) / (2 * torch.hypot(x2 - x1, y2 - y1).clamp_min(1e-3))
    return shade, first.sqrt(), border


def cracked(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Dry mud: thin ragged cracks of uneven width between irregular flakes."""
    u = canvas.u + 0.14 * canvas.noise[2] + 0.1 * canvas.noise[3]
    v = canvas.v + 0.14 * canvas.noise[2].transpose(1, 2) + 0.1 * canvas.noise[3].transpose(1, 2)
    _, _, border = _nearest(canvas, u, v, jitter=0.95)
    width = 0.035 + 0.03 * canvas.shape + 0.035 * canvas.noise[1]
    return canvas.edge(width.clamp_min(0.01) - border, scale=0.6), torch.zeros_like(u)


def cells(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Stained glass without lead: irregular flat patches in the three colours."""
    shade, _, _ = _nearest(canvas, canvas.u, canvas.v, jitter=0.9)
    return (shade > 0.36).float() * (0.8 + 0.2 * canvas.style), (shade > 0.7).float()


def bubbly(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Shaded balls of different sizes, lit from one side, each with a highlight."""
    i, j = canvas.u.floor(), canvas.v.floor()
    height = torch.zeros_like(canvas.u)
    light = torch.zeros_like(canvas.u)
    angle = 2 * math.pi * canvas.style
    lx, ly = 0.6 * torch.cos(angle), 0.6 * torch.sin(angle)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            radius = 0.34 + 0.3 * canvas.look_up(2, i + di, j + dj)
            x = (canvas.u - i - di - 0.25 - 0.5 * canvas.look_up(0, i + di, j + dj)) / radius
            y = (canvas.v - j - dj - 0.25 - 0.5 * canvas.look_up(1, i + di, j + dj)) / radius
            z = (1 - x * x - y * y).clamp_min(0).sqrt()
            higher = radius * z > height
            light = torch.where(higher, 0.8 * z + lx * x + ly * y, light)
            height = torch.maximum(height, radius * z)
    inside = canvas.edge(height - 0.08, scale=0.7)
    return inside * (0.25 + 0.75 * light).clamp(0, 1), inside * ((light - 0.86) / 0.1).clamp(0, 1)


def honeycomb(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Regular hexagons with walls."""
    root3 = math.sqrt(3)
    ax, ay = canvas.u - canvas.u.round(), canvas.v - root3 * (canvas.v / root3).round()
    bx, by = _centred(canvas.u), canvas.v - root3 * ((canvas.v / root3).floor() + 0.5)
    first = ax * ax + ay * ay < bx * bx + by * by
    x, y = torch.where(first, ax, bx).abs(), torch.where(first, ay, by).abs()
    border = 0.5 - torch.maximum(x, 0.5 * x + 0.5 * root3 * y)  # 0 on the wall, 0.5 in the middle
    return canvas.edge(border - 0.06 - 0.05 * canvas.shape, scale=0.7), torch.zeros_like(x)


def bricks(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """A wall in running bond: bricks twice as long as high, each of its own shade."""
    row = (2 * canvas.v).floor()
    along = canvas.u + 0.5 * row.remainder(2)
    border = torch.minimum(0.5 - _centred(along).abs(), 0.25 - 0.5 * _centred(2 * canvas.v).abs())
    shade = canvas.look_up(2, along.floor(), row)
    return canvas.edge(border - 0.035 - 0.02 * canvas.shape, scale=0.6), 0.55 * shade * shade


def marbled(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Veins: the crests of a sine that is pushed about by turbulence (Perlin, SIGGRAPH 1985)."""
    noise = canvas.noise
    turbulence = 0.55 * noise[0] + 0.3 * noise[1] + 0.09 * noise[2] + 0.03 * noise[3]
    vein = 1 - torch.sin(2 * math.pi * (0.7 * canvas.u + turbulence)).abs()
    fine = 1 - torch.sin(2 * math.pi * (0.5 * canvas.v + 0.8 * turbulence + 0.12 * noise[2])).abs()
    cloud = 0.22 * (1 + noise[1])
    return (cloud + (0.9 + 0.1 * canvas.shape) * vein**4 + 0.7 * fine**8).clamp(0, 1), 0.7 * fine**8


def blotchy(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Camouflage: smooth noise cut at two levels."""
    octave = torch.log2(2 * canvas.frequency) - 2  # 0 at a lattice of 4, which has about two blotches across
    weights = [torch.exp(-((octave - k) ** 2)) for k in range(4)]
    field = sum(weight * noise for weight, noise in zip(weights, canvas.noise, strict=True)) + 0.08 * canvas.noise[3]
    other = field.transpose(1, 2).flip(1)  # a second field for nothing: the first one, turned
    return canvas.edge(0.4 * field, scale=0.8), canvas.edge(0.4 * other - 0.14, scale=0.8)


def crosshatched(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Pen strokes in two directions, 50° to 80° apart, that break off and start again."""
    angle = math.radians(25) + math.radians(15) * canvas.shape
    cosine, sine = torch.cos(angle), torch.sin(angle)
    ink = torch.zeros_like(canvas.u)
    for side in (1, -1):
        across, along = canvas.u * cosine + side * canvas.v * sine, canvas.v * cosine - side * canvas.u * sine
        stroke = across.floor()
        start = 4 * canvas.look_up(0 if side > 0 else 1, stroke, torch.zeros_like(stroke))
        gap = _triangle(0.22 * along + start) - 0.09  # positive on the stroke
        line = canvas.edge(0.2 - _centred(across).abs()) * canvas.edge(gap * 3)
        ink = torch.maximum(ink, line)
    return ink, torch.zeros_like(ink)


def woven(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """A plain weave: round ribbons that go over and under each other in turn."""
    a, b = 2 * canvas.u, 2 * canvas.v
    x, y = _centred(a), _centred(b)
    over = (a.floor() + b.floor()).remainder(2) < 0.5  # here the ribbon along u lies on top
    half = 0.34 + 0.1 * canvas.shape
    along_u, along_v = canvas.edge((half - y.abs()) / 2, scale=0.5), canvas.edge((half - x.abs()) / 2, scale=0.5)
    sign = torch.where(over, 1.0, -1.0)
    height_u = 0.62 + 0.38 * sign * torch.cos(math.pi * x) - 0.9 * y * y  # high on top, low underneath
    height_v = 0.62 - 0.38 * sign * torch.cos(math.pi * y) - 0.9 * x * x
    first = along_u * torch.where(over, torch.ones_like(a), 1 - along_v)
    second = along_v * (1 - first)
    ink = (first * height_u + second * height_v).clamp(0, 1)
    return ink, 0.8 * second * (canvas.style < 0.6)


def scaly(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Fish scales: round-ended tiles in rows, each row over the one behind it."""
    rows = 2 * canvas.v  # a row every half period; a scale reaches over two rows
    row = rows.floor()
    distance = torch.full_like(rows, 2.0)
    found = torch.zeros_like(rows, dtype=torch.bool)
    shade = torch.zeros_like(rows)
    for step in (0, 1, 2):  # front row first: the scale whose tip hangs lowest
        k = row - 1 + step
        x = _centred(canvas.u + 0.5 * k.remainder(2))
        y = (rows - k) / 2
        radius = torch.hypot(x, y)
        inside = (radius < 0.56) & ~found
        distance = torch.where(inside, radius, distance)
        shade = torch.where(inside, y, shade)
        found = found | inside
    rim = canvas.edge(distance.clamp_max(0.56) - 0.44 - 0.05 * canvas.shape, scale=0.6)
    return (1 - rim) * (0.62 + 0.38 * (1 - shade.clamp(0, 0.6) / 0.6)), 0.4 * (1 - rim) * shade.clamp(0, 0.5)


# name -> (pattern, lowest frequency, highest frequency), in periods across the image.
# The highest keeps the finest stroke at about two pixels of a 64-pixel image, the lowest shows the pattern repeat.
PATTERNS: dict[str, tuple[Pattern, float, float]] = {
    "striped": (striped, 3.0, 12.0),
    "waved": (waved, 3.0, 8.0),
    "zigzagged": (zigzagged, 3.0, 7.5),
    "checkered": (checkered, 2.0, 7.0),
    "dotted": (dotted, 4.0, 10.0),
    "grid": (grid, 3.0, 8.0),
    "ringed": (ringed, 1.2, 2.4),
    "spiralled": (spiralled, 1.1, 2.2),
    "cracked": (cracked, 3.0, 6.0),
    "cells": (cells, 3.5, 7.0),
    "bubbly": (bubbly, 2.5, 5.5),
    "honeycomb": (honeycomb, 4.0, 8.5),
    "bricks": (bricks, 2.2, 5.0),
    "marbled": (marbled, 1.2, 2.6),
    "blotchy": (blotchy, 2.0, 5.0),
    "crosshatched": (crosshatched, 6.0, 11.0),
    "woven": (woven, 2.0, 4.6),
    "scaly": (scaly, 3.0, 6.5),
}
