"""The answers: a box of pixels, and the receptive field of a layer."""

from __future__ import annotations

from dataclasses import dataclass

Extent = int | tuple[int, int]


def pair(value: float | tuple[float, float]) -> tuple[float, float]:
    """(along y, along x) of a value that is one number where both agree."""
    return value if isinstance(value, tuple) else (value, value)


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, rows ``y0`` to ``y1 - 1`` and columns ``x0`` to ``x1 - 1``: ``image[:, y0:y1, x0:x1]``.

    May reach outside the image unless it was clipped. A unit that sees nothing has ``Box(0, 0, 0, 0)``.
    """

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in it."""
        return self.height <= 0 or self.width <= 0

    def clip(self, height: int, width: int) -> Box:
        """The part inside an image of ``height × width``."""
        box = Box(max(self.y0, 0), min(self.y1, height), max(self.x0, 0), min(self.x1, width))
        return Box(0, 0, 0, 0) if box.is_empty else box


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of the units of one layer, in pixels of the network's input.

    Unit u of an axis sees the pixels ``start + u·stride`` to ``start + u·stride + size - 1``; the ones outside the
    image are padding. A value is one integer when both axes agree, else ``(along y, along x)``.

    Attributes:
        size: how many pixels; where channels differ, the most that any of them sees along each axis.
        stride: how far the fields of neighbouring units are apart (the layer's cumulative stride, its "jump"). Below 1,
            and then a float, where maps were enlarged beyond the image; 0 where every unit sees the same.
        start: the first pixel that unit 0 sees, negative where it begins in the padding.
        status: ``"complete"``: the law above holds exactly. ``"whole image"``: the units see the whole image, however
            large it is (behind a global pool, a flatten and a linear layer, attention); ``size`` is then that of the
            image as far as it is seen, ``start`` the first pixel that is. ``"partial"``: ``note`` says what the
            numbers leave out. ``"unavailable"``: ``note`` says why, size and stride are 0.
        per_channel: None where all channels agree, else the size of each channel (as ``size``).
        note: sentences; empty when there is nothing to add.
        per_channel_start: None where all channels agree, else the start of each channel.
    """

    size: Extent
    stride: float | tuple[float, float]
    start: Extent
    status: str = "complete"
    per_channel: tuple[Extent, ...] | None = None
    note: str = ""
    per_channel_start: tuple[Extent, ...] | None = None

    def box(self, y: int, x: int, channel: int | None = None) -> Box:
        """The field of the unit at (y, x) by the law, not clipped by the image; of the largest field by default."""
        sizes = self.size if channel is None or self.per_channel is None else self.per_channel[channel]
        starts = self.start if channel is None or self.per_channel_start is None else self.per_channel_start[channel]
        (h, w), (sy, sx), (y0, x0) = pair(sizes), pair(self.stride), pair(starts)
        top, left = int(y0 + y * sy // 1), int(x0 + x * sx // 1)
        return Box(top, top + int(h), left, left + int(w))
