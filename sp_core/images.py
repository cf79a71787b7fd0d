"""Untrusted bytes to an upright sRGB picture, and a picture to what a network sees."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sp_core.decoding import MAX_BYTES, WHITE
from sp_core.decoding_process import decode_apart
from sp_core.errors import SpError

STORED = "values as stored"


@dataclass(frozen=True)
class Opened:
    """A picture from a file: ``image`` as :func:`open_image` gives it, and ``notes`` on what was done to the file.

    A note is a few words, such as ``"turned by 90° as its EXIF tag says"`` or ``"only its first frame is used"``.
    """

    image: Image.Image
    notes: tuple[str, ...]


def open_image(source: str | Path | bytes, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Read an image file or its bytes as an upright RGB picture in sRGB.

    EXIF orientation is applied, transparency is laid over ``background``, 16-bit and float images are scaled to 8 bits,
    of an animation the first frame is taken, and colours are converted by the embedded profile. Networks, however, are
    trained on the values that files store, and their accuracies are measured on these: of RGB and grey files with a
    profile other than sRGB's, :func:`resize_and_crop`, and with it ``net.view``, takes the stored values (see
    :func:`as_stored`).

    The file is decoded in another process, within 5 seconds and 1.5 GB (:mod:`sp_core.decoding_process`).

    Raises:
        SpError: the file is missing, not an image, damaged, or larger than the limits.

    >>> buffer = io.BytesIO(); Image.new("L", (4, 3), 255).save(buffer, "PNG")
    >>> open_image(buffer.getvalue()).size
    (4, 3)
    """
    return open_with_notes(source, background).image


def open_with_notes(source: str | Path | bytes, background: tuple[int, int, int] = WHITE) -> Opened:
    """As :func:`open_image`, with short notes on what was done for the person at the screen."""
    name, data = _bytes(source)
    if len(data) > MAX_BYTES:
        raise SpError(f"{name} has {len(data) / 2**20:.0f} MB; an image may have at most {MAX_BYTES // 2**20} MB.")
    decoded = decode_apart(data, name, background)
    if decoded.stored is not None:
        decoded.image.info[STORED] = (_checksum(decoded.image), decoded.stored)
    return Opened(decoded.image, decoded.notes)


def as_stored(image: Image.Image) -> Image.Image:
    """The values that the file of ``image`` stores, before its colour profile was applied; else ``image`` itself.

    They travel in ``image.info``. A picture that was cropped, resized or drawn upon since it was opened is taken as it
    is: the checksum no longer fits.
    """
    checksum, stored = image.info.get(STORED, (None, image))
    return stored if checksum is None or checksum == _checksum(image) else image


def _checksum(image: Image.Image) -> tuple[tuple[int, int], int]:
    return image.size, zlib.crc32(image.tobytes())


def _bytes(source: str | Path | bytes) -> tuple[str, bytes]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "The image", bytes(source)
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            megabytes = path.stat().st_size / 2**20
            raise SpError(f"{path.name} has {megabytes:.0f} MB; an image may have at most {MAX_BYTES // 2**20} MB.")
        return path.name, path.read_bytes()
    except (OSError, ValueError) as error:
        raise SpError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}.") from error


def resize_and_crop(image: Image.Image, resize: int, size: tuple[int, int]) -> Image.Image:
    """The shorter side to ``resize`` pixels (bilinear, antialiased), then the centre ``size`` = (height, width).

    The same arithmetic as torchvision's ``Resize`` on a PIL image, so published accuracies hold. Where the margin is
    odd, the crop lies within one pixel of torchvision's ``CenterCrop``: the further margin is the even one here, the
    nearer there. For a non-square ``size`` the image is resized to cover it. The crop has the values that the file
    of the picture stores (:func:`as_stored`).
    """
    height, width = size
    image = as_stored(image)
    scale_w, scale_h = _scaled(image.size, resize, size)
    resized = image.resize((scale_w, scale_h), Image.Resampling.BILINEAR) if (scale_w, scale_h) != image.size else image
    left, top = _margin(scale_w - width), _margin(scale_h - height)
    return resized.crop((left, top, left + width, top + height))


def crop_box(image: tuple[int, int], resize: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where :func:`resize_and_crop` cuts: (left, top, right, bottom) in pixels of a picture of size ``image``.

    ``image`` is (width, height), ``size`` is (height, width). Left and top are at least 0; fractions of pixels occur.

    >>> crop_box((500, 300), 150, (120, 120))
    (130.0, 30.0, 370.0, 270.0)
    """
    height, width = size
    scale_w, scale_h = _scaled(image, resize, size)
    left, top = _margin(scale_w - width), _margin(scale_h - height)
    across, down = image[0] / scale_w, image[1] / scale_h
    return left * across, top * down, (left + width) * across, (top + height) * down


def _scaled(image: tuple[int, int], resize: int, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height to which a picture of that (width, height) is resized before the crop."""
    height, width = size
    if height == width:
        return _shorter_side(image, resize)
    factor = max(height / image[1], width / image[0])
    return max(width, round(image[0] * factor)), max(height, round(image[1] * factor))


def _margin(total: int) -> int:
    """How much of ``total`` pixels is cut before the crop: half of it; of an odd total, the rest after it is even."""
    return total - round(total / 2)  # Python rounds a half to the even neighbour


def _shorter_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return side, max(side, int(side * height / width))
    return max(side, int(side * width / height)), side


def to_tensor(image: Image.Image, channels: int = 3) -> Tensor:
    """float32 ``[channels, h, w]`` in [0, 1].

    One channel is the luminance (ITU-R 601); three are RGB; two are the luminance twice; more repeat R, G, B in turn,
    which is a stand-in so that such a network can be looked at, not what its sensor would have seen.
    """
    mode = "L" if channels < 3 else "RGB"
    array = np.array(image.convert(mode), dtype=np.float32) / 255
    tensor = torch.from_numpy(array)
    planes = tensor[None] if mode == "L" else tensor.permute(2, 0, 1)
    wanted = torch.arange(channels) % planes.shape[0]
    return planes[wanted].contiguous()


def channels_in_words(channels: int) -> str:
    """How :func:`to_tensor` makes the channels, for the person at the screen; empty for the usual three.

    >>> channels_in_words(1)
    'Its one channel is the luminance of the picture.'
    """
    if channels == 3:
        return ""
    if channels == 1:
        return "Its one channel is the luminance of the picture."
    if channels == 2:
        return "Both of its channels are the luminance of the picture; one is shown."
    return (
        f"Its {channels} channels are red, green and blue in turn, a stand-in for what its own sensor would see; "
        "the first three are shown."
    )


def to_picture(image: Tensor) -> Image.Image:
    """A tensor ``[c, h, w]`` in [0, 1] as a picture: one channel is grey; of more than three, the first three."""
    planes = image.detach().float().cpu().clamp(0, 1)
    planes = planes[:3] if planes.shape[0] >= 3 else planes[:1].expand(3, -1, -1)
    array = (planes.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(array)


def png(image: Image.Image) -> bytes:
    """The picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
