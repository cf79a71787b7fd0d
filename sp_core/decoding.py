"""Bytes of an image file to upright sRGB pixels, with notes on what was done to get there.

This is the part that reads untrusted bytes with native libraries. :mod:`sp_core.decoding_process` runs it in a process
of its own, where time and memory are bounded; it needs Pillow and numpy only, so that process starts quickly.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from sp_core.errors import SpError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MAX_MEMORY = 1536 * 2**20  # of the process that decodes, its libraries included
ENOUGH = 2048  # a JPEG photo is decoded at the smallest scale of 1, 1/2, 1/4, 1/8 with at least so many pixels a side
WHITE = (255, 255, 255)
# Formats whose readers start no other program and have no scripts in them: EPS, for one, would run Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "ICO", "JPEG2000", "PPM", "TGA")
TURNED = {2: "mirrored", 3: "turned by 180°", 4: "flipped", 5: "turned and mirrored", 6: "turned by 90°"}
TURNED |= {7: "turned and mirrored", 8: "turned by 270°"}


@dataclass(frozen=True)
class Decoded:
    """What a file holds.

    Attributes:
        image: upright, RGB, in sRGB, laid over the background.
        stored: the same with the RGB or grey values as the file stores them, where its colour profile changed them;
            None where they are those of ``image``.
        notes: what a person should know was done, such as ``"CMYK converted to sRGB"``.
    """

    image: Image.Image
    stored: Image.Image | None
    notes: tuple[str, ...]


def decode(data: bytes, name: str = "The image", background: tuple[int, int, int] = WHITE) -> Decoded:
    """Decode the first picture of a file; whatever goes wrong is one sentence that begins with ``name``.

    Raises:
        SpError: not an image of a format in ``FORMATS``, damaged, or larger than ``MAX_PIXELS``.

    >>> buffer = io.BytesIO(); Image.new("LA", (4, 3), (0, 128)).save(buffer, "PNG")
    >>> decode(buffer.getvalue()).notes
    ('transparent parts lie on white',)
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # damage that matters raises; the rest is not for the person
            return _decode(data, name, background)
    except SpError:
        raise
    except Image.UnidentifiedImageError as error:
        raise SpError(
            f"{name} cannot be read as an image: its content is none of {', '.join(FORMATS)}, or is damaged; "
            "save it again as PNG or JPEG."
        ) from error
    except Image.DecompressionBombError as error:
        raise SpError(
            f"{name} is far larger than the {MAX_PIXELS // 10**6} megapixels that are decoded at most; "
            "make it smaller and try again."
        ) from error
    except MemoryError as error:
        raise SpError(
            f"{name} needs more than the {MAX_MEMORY / 2**30:g} GB of memory that decoding may take; "
            "make it smaller and try again."
        ) from error
    except Exception as error:  # Pillow raises TypeError, IndexError, SyntaxError … on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"{name} cannot be read as an image ({reason}); save it again as PNG or JPEG.") from error


def _decode(data: bytes, name: str, background: tuple[int, int, int]) -> Decoded:
    Image.init()
    image: Any = Image.open(io.BytesIO(data), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    width, height = image.size
    if width < 1 or height < 1:
        raise SpError(f"{name} is {width}×{height} pixels: there is nothing to look at.")
    if width * height > MAX_PIXELS:
        raise SpError(
            f"{name} is {width}×{height} = {width * height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS // 10**6} are decoded. Make it smaller and try again."
        )
    notes = []
    if getattr(image, "is_animated", False):
        notes.append("only its first frame is used")
    if image.format in {"JPEG", "MPO"}:
        image.draft("RGB", (ENOUGH, ENOUGH))
        if image.size != (width, height):
            notes.append(f"{width}×{height} pixels, decoded at 1/{round(width / image.width)} of that")
    deep = any(re.search(";16[BLN]", str(tile[3])) for tile in image.tile)
    orientation = image.getexif().get(0x112, 1)  # before loading: TIFF forgets it then
    image.load()
    profile = image.info.get("icc_profile")
    if orientation in TURNED:
        image = ImageOps.exif_transpose(image)
        notes.append(f"{TURNED[orientation]} as its EXIF tag says")
    if deep or image.mode.startswith("I;16"):
        notes.append("16 bits scaled to 8")
    colours, alpha = _apart(_to_8_bits(image, notes))
    stored, shown = _to_srgb(colours, profile, notes)
    if alpha is not None and alpha.getextrema()[0] < 255:
        notes.append(f"transparent parts lie on {'white' if background == WHITE else f'RGB {background}'}")
        shown, stored = _over(shown, alpha, background), _over(stored, alpha, background)
    return Decoded(shown, stored, tuple(notes))


def _to_8_bits(image: Any, notes: list[str]) -> Any:
    """Scale integer and float modes to 0…255. 16 bits are divided by 257; other ranges are stretched to fit."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        return Image.fromarray((values // 257 + (values % 257 > 128)).astype(np.uint8), "L")
    if image.mode not in {"I", "F"}:
        return image
    values = np.asarray(image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode == "I" and low >= 0 and 255 < high <= 65535:
        values /= 257
        notes.append("16 bits scaled to 8")
    elif low < 0 or high > 255:
        scale = 255 / max(high - low, 1e-12)
        values = values * np.float32(scale) - np.float32(low * scale)
        notes.append(f"its values from {low:.4g} to {high:.4g} are stretched from black to white")
    elif image.mode == "F" and high <= 1:
        values *= 255
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8), "L")


def _apart(image: Any) -> tuple[Any, Any]:
    """Colours in one of L, RGB, CMYK, LAB, and the alpha channel or None."""
    if image.mode in {"LA", "La"}:
        grey, alpha = image.convert("LA").split()
        return grey, alpha
    if image.mode in {"RGBA", "PA", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _to_srgb(colours: Any, profile: bytes | None, notes: list[str]) -> tuple[Any, Any]:
    """The colours as stored, where those differ, and in sRGB: converted by the profile that is embedded, if any."""
    plain = None if colours.mode == "LAB" else colours if colours.mode == "RGB" else colours.convert("RGB")
    transform: Any = None
    words = ""
    if colours.mode == "LAB":
        transform, words = ImageCms.createProfile("LAB"), "LAB"
    elif profile:
        try:
            transform = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            words = _description(transform, colours.mode)
            space = transform.profile.xcolor_space.strip()
            wanted = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
            if wanted == "RGB" and colours.mode == "L":
                colours = plain
            if wanted != colours.mode:
                transform = None
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            transform = None
    if transform is None:
        if colours.mode == "CMYK":
            notes.append("CMYK converted to RGB without a colour profile")
        return None, plain
    try:
        shown = _applied(transform, colours)
        if shown is colours:
            return None, plain
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        if plain is None:
            raise
        notes.append("its colour profile is damaged and was not used")
        return None, plain
    notes.append(f"{words} converted to sRGB")
    # Networks are trained on RGB and grey values as files store them; CMYK and LAB ones have no meaning to them.
    return (plain if colours.mode in {"L", "RGB"} else None), shown


def _description(profile: Any, mode: str) -> str:
    words = "".join(letter for letter in ImageCms.getProfileDescription(profile) if letter.isprintable()).strip()
    kind = {"L": "grey", "RGB": "colours"}.get(mode, mode)
    return f"{kind} of profile “{words[:40]}”" if words else kind


def _applied(profile: Any, colours: Any) -> Any:
    """The colours in sRGB as RGB; themselves where the profile is as good as sRGB's: within one level of 255."""
    # Without its optimisations, because these take dark greys of a linear profile 10 levels off; a table is as quick.
    flags = ImageCms.Flags.NOOPTIMIZE if colours.mode == "L" else ImageCms.Flags.NONE
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colours.mode, "RGB", flags=flags)
    if colours.mode in {"L", "RGB"}:
        steps = np.arange(256) if colours.mode == "L" else np.linspace(0, 255, 18).round()
        axes = np.meshgrid(*[steps.astype(np.uint8)] * len(colours.mode))
        tried = Image.fromarray(np.stack(axes, -1).reshape(1, -1, len(axes)).squeeze(2 if len(axes) == 1 else ()))
        there: Any = ImageCms.applyTransform(tried, transform)
        off = np.asarray(there, np.int16) - np.asarray(tried.convert("RGB"), np.int16)
        if np.abs(off).max() <= 1:
            return colours
        if colours.mode == "L":
            table = colours.copy()
            table.putpalette(there.tobytes())
            return table.convert("RGB")
    return ImageCms.applyTransform(colours, transform)


def _over(colours: Any, alpha: Any, background: tuple[int, int, int]) -> Any:
    if colours is None:
        return None
    below = Image.new("RGB", colours.size, background)
    below.paste(colours, mask=alpha)
    return below
