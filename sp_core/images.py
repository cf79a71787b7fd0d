"""Untrusted bytes to an upright RGB picture, and a picture to what a network sees.

Pillow raises far more than OSError on broken files; all of it becomes one sentence here. Sizes are checked from the
header before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from sp_core.errors import SpError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
BACKGROUND = (255, 255, 255)


def open_image(source: str | Path | bytes, background: tuple[int, int, int] = BACKGROUND) -> Image.Image:
    """Read an image file or its bytes as an upright RGB picture.

    EXIF orientation is applied, transparency is laid over ``background``, 16-bit and float images are scaled to 8 bits,
    and of an animation the first frame is taken. CMYK and LAB are converted to sRGB by their colour profile; RGB and
    grey values stay as they are stored, whatever their profile: networks are trained, and their accuracies measured,
    that way.

    Raises:
        SpError: the file is missing, not an image, damaged, or larger than the limits.

    >>> buffer = io.BytesIO(); Image.new("L", (4, 3), 255).save(buffer, "PNG")
    >>> open_image(buffer.getvalue()).size
    (4, 3)
    """
    name, data = _bytes(source)
    if len(data) > MAX_BYTES:
        raise SpError(f"{name} has {len(data) / 2**20:.0f} MB; an image may have at most {MAX_BYTES // 2**20} MB.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damage that matters raises; the rest is not for the person
            return _decode(name, data, background)
    except SpError:
        raise
    except Image.DecompressionBombError as error:
        raise SpError(
            f"{name} is far larger than the {MAX_PIXELS // 10**6} megapixels that are decoded at most; "
            "make it smaller and try again."
        ) from error
    except MemoryError as error:
        raise SpError(f"{name} needs more memory than there is; make it smaller and try again.") from error
    except Exception as error:  # Pillow raises TypeError, IndexError, SyntaxError … on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"{name} cannot be read as an image ({reason}); save it again as PNG or JPEG.") from error


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


def _decode(name: str, data: bytes, background: tuple[int, int, int]) -> Image.Image:
    image: Any = Image.open(io.BytesIO(data))
    width, height = image.size
    if width < 1 or height < 1:
        raise SpError(f"{name} is {width}×{height} pixels: there is nothing to look at.")
    if width * height > MAX_PIXELS:
        raise SpError(
            f"{name} is {width}×{height} = {width * height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS // 10**6} are decoded. Make it smaller and try again."
        )
    if image.format == "JPEG":
        image.draft("RGB", (2048, 2048))  # a large photo is decoded at the scale that is needed
    image.load()
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    return _to_rgb(_to_srgb(_to_8_bits(image), profile), background)


def _to_8_bits(image: Any) -> Any:
    """Scale integer and float modes to 0…255. 16 bits are divided by 257; other ranges are stretched to fit."""
    if image.mode not in {"I", "F"} and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        values = values / 257
    elif values.min() < 0 or values.max() > 255:
        low, high = values.min(), values.max()
        values = (values - low) / max(high - low, 1e-12) * 255
    elif image.mode == "F" and values.max() <= 1:
        values = values * 255
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8), "L")


def _to_srgb(image: Any, profile: bytes | None) -> Any:
    """Convert by the embedded colour profile where it can be used; a broken profile is ignored."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if not profile or image.mode != "CMYK":
        return image
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _to_rgb(image: Any, background: tuple[int, int, int]) -> Image.Image:
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        below = Image.new("RGBA", layer.size, (*background, 255))
        return Image.alpha_composite(below, layer).convert("RGB")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, resize: int, size: tuple[int, int]) -> Image.Image:
    """The shorter side to ``resize`` pixels (bilinear, antialiased), then the centre ``size`` = (height, width).

    The same arithmetic as torchvision's ``Resize`` on a PIL image, so published accuracies hold. Where the margin is
    odd, the crop lies within one pixel of torchvision's ``CenterCrop``: the further margin is the even one here, the
    nearer there. For a non-square ``size`` the image is resized to cover it.
    """
    height, width = size
    if height == width:
        scale_w, scale_h = _shorter_side(image.size, resize)
    else:
        factor = max(height / image.height, width / image.width)
        scale_w, scale_h = max(width, round(image.width * factor)), max(height, round(image.height * factor))
    resized = image.resize((scale_w, scale_h), Image.Resampling.BILINEAR) if (scale_w, scale_h) != image.size else image
    left, top = _margin(scale_w - width), _margin(scale_h - height)
    return resized.crop((left, top, left + width, top + height))


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
