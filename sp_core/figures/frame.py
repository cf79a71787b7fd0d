"""A picture, reduced, with one part framed and the rest dimmed."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageEnhance

OUTSIDE = 0.45  # of the brightness


def framed(image: Image.Image, box: tuple[float, float, float, float] | None, most: tuple[int, int]) -> Image.Image:
    """``image`` fitted into ``most`` = (width, height) pixels, with ``box`` framed.

    Args:
        image: RGB. One that is smaller than ``most`` is enlarged, pixel by pixel.
        box: (left, top, right, bottom) in pixels of ``image``; None, or the whole picture, draws no frame.
        most: of the picture that is made.

    The frame is a white line of four pixels in a black one of two, so that it is seen on any picture and any page.

    >>> framed(Image.new("RGB", (300, 100)), (100, 0, 200, 100), (150, 150)).size
    (150, 50)
    """
    scale = min(most[0] / image.width, most[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    small = image.resize(size, how, reducing_gap=2 if scale < 1 else None)
    if box is None or (box[2] - box[0] > image.width - 1 and box[3] - box[1] > image.height - 1):
        return small
    left, top = round(box[0] * scale), round(box[1] * scale)
    right, bottom = max(left + 1, round(box[2] * scale)), max(top + 1, round(box[3] * scale))
    seen = small.crop((left, top, right, bottom))
    dimmed = ImageEnhance.Brightness(small).enhance(OUTSIDE)
    dimmed.paste(seen, (left, top))
    pen = ImageDraw.Draw(dimmed)
    pen.rectangle((left, top, right - 1, bottom - 1), outline="black", width=2)
    if min(right - left, bottom - top) > 12:
        pen.rectangle((left + 2, top + 2, right - 3, bottom - 3), outline="white", width=4)
    return dimmed
