"""Mutated images: each gives a picture or one sentence, in time and within memory.

    SP_REAL_DATA=../shared/data python -m tests.fuzz.images --count 20000 --state /tmp/images.json

Case ``i`` is made of its number alone, so that a failure can be repeated (``--only i``), and a run that was stopped
goes on where it was. With ``SP_REAL_DATA`` the odd and broken images there are mutated too.
"""

import argparse
import io
import json
import os
import random
import struct
import sys
import time
import traceback
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from sp_core import decoding_process
from sp_core.decoding import FORMATS, MAX_PIXELS
from sp_core.errors import SpError
from sp_core.images import open_with_notes

LARGEST = 200_000  # bytes of a file that is mutated: larger ones only take longer
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def made() -> tuple[tuple[str, bytes], ...]:
    """Small files of every format that is read, in its usual variants."""
    pixels = np.random.default_rng(0).integers(0, 256, (19, 23, 4), dtype=np.uint8)
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray((np.arange(19 * 23).reshape(19, 23) * 149).astype(np.uint16))
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    exif = Image.Exif()
    exif[0x112] = 6
    exif[0x10E] = "a description"
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    known = {"exif": exif, "icc_profile": profile}
    files = {
        "JPEG": [(rgb, known), (grey, {}), (rgb.convert("CMYK"), {}), (rgb, {"progressive": True, "subsampling": 0})],
        "PNG": [(rgba, known), (deep, {}), (rgb.quantize(16), {}), (grey.convert("1"), {}), (rgb, frames)],
        "GIF": [(rgb.quantize(16), {}), (rgb, frames)],
        "WEBP": [(rgba, {"lossless": True, **known}), (rgb, {}), (rgba, {}), (rgb, frames)],
        "AVIF": [(rgb, known), (rgba, {}), (rgb, frames)],
        "TIFF": [
            *(
                (picture, {"compression": how})
                for picture in (rgb, deep)
                for how in ("raw", "tiff_lzw", "tiff_deflate")
            ),
            (rgb, {"compression": "jpeg", **known}),
            (grey.convert("1"), {"compression": "group4"}),
            (rgb.convert("CMYK"), {}),
            (rgba, frames),
            (grey.convert("F"), {}),
            (rgb.convert("LAB"), {}),
        ],
        "BMP": [(rgb, {}), (rgb.quantize(16), {}), (grey.convert("1"), {}), (rgba, {})],
        "ICO": [(rgba, {"sizes": [(16, 16)]}), (rgba, {"sizes": [(16, 16)], "bitmap_format": "bmp"})],
        "JPEG2000": [(rgb, {}), (rgba, {}), (deep, {}), (rgb, {"irreversible": True, "no_jp2": True})],
        "PPM": [(rgb, {}), (grey, {}), (deep, {}), (grey.convert("1"), {})],
        "TGA": [(rgb, {}), (rgba, {"compression": "tga_rle"}), (rgb.quantize(16), {})],
    }
    assert set(files) == set(FORMATS)
    return tuple(
        (f"{kind} {place}", encoded(picture, kind, **options))
        for kind, variants in files.items()
        for place, (picture, options) in enumerate(variants)
    )


@cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """What the mutations start from."""
    folder = os.environ.get("SP_REAL_DATA")
    found = sorted((Path(folder) / "images_hostile").rglob("*.*")) if folder else []
    wild = [path for path in found if path.suffix != ".csv" and path.is_file() and path.stat().st_size <= LARGEST]
    return made() + tuple((path.name, path.read_bytes()) for path in wild)


def case(number: int) -> tuple[str, bytes]:
    """Case ``number``: what was mutated, and the mutated bytes."""
    dice = random.Random(number)
    name, data = dice.choice(dice.choice((made(), seeds())))
    mutable = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 1, 2, 5))):
        dice.choice(MUTATIONS)(mutable, dice)
    if mutable[:4] == b"\x89PNG" and dice.random() < 0.7:
        mutable = bytearray(mended(bytes(mutable)))
    return name, bytes(mutable)


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 12))):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def flip_head(data: bytearray, dice: random.Random) -> None:
    """Sizes, kinds and tables stand at the beginning."""
    for _ in range(dice.randint(1, 4)):
        if data:
            data[dice.randrange(min(len(data), 64))] = dice.randrange(256)


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randint(0, len(data)) :]


def drop(data: bytearray, dice: random.Random) -> None:
    start = dice.randint(0, len(data))
    del data[start : start + dice.choice((1, 4, 64, 4096))]


def repeat(data: bytearray, dice: random.Random) -> None:
    start = dice.randint(0, len(data))
    part = data[start : start + dice.choice((2, 12, 100, 3000))]
    data[start:start] = part * dice.choice((1, 2, 50))


def splice(data: bytearray, dice: random.Random) -> None:
    _, other = dice.choice(seeds())
    start, stop = sorted(dice.randint(0, len(other)) for _ in range(2))
    at = dice.randint(0, len(data))
    data[at : at + dice.choice((0, stop - start))] = other[start:stop]


def number(data: bytearray, dice: random.Random) -> None:
    """A length, a dimension, a count or an offset becomes one that is easily forgotten."""
    form = dice.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    if len(data) >= size:
        at = dice.randrange(min(len(data) - size + 1, dice.choice((64, 1024, len(data)))))
        struct.pack_into(form, data, at, dice.choice(NUMBERS) % 2 ** (8 * size))


MUTATIONS = (flip, flip, flip, flip_head, cut, drop, repeat, splice, number, number)


def mended(data: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have: without them, readers look no further."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]


def peak() -> int:
    """The most memory that an idle helper has had, in MB; 0 where the system does not tell."""
    most = 0
    for helper in decoding_process._idle:
        try:
            lines = Path(f"/proc/{helper.process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        most = max(most, *(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
    return most


def check(data: bytes) -> str:
    """``"pictures"`` or the kind of sentence; raises where there is neither."""
    try:
        found = open_with_notes(data)
    except SpError as error:
        text = str(error)
        assert text.startswith("The image ") and len(text) < 300 and "\n" not in text, text
        kinds = {"late": "takes longer", "stopped": "decoder stop", "memory": "of memory", "large": "megapixels"}
        return next((kind for kind, words in kinds.items() if words in text), "sentences")
    assert found.image.mode == "RGB" and 0 < found.image.width * found.image.height <= MAX_PIXELS
    assert len(found.image.tobytes()) == 3 * found.image.width * found.image.height
    assert all(isinstance(note, str) and len(note) < 120 for note in found.notes)
    return "pictures"


def run(start: int, stop: int, state: dict) -> dict:
    """Cases ``start … stop - 1`` into ``state``: how many of each outcome, the slowest, the peak, what failed."""
    for number in range(start, stop):
        name, data = case(number)
        begun = time.perf_counter()
        try:
            outcome = check(data)
        except BaseException:
            if sys.exc_info()[0] is KeyboardInterrupt:
                raise
            outcome = "failures"
            state.setdefault("failed", []).append([number, name, traceback.format_exc()[-600:]])
        took = time.perf_counter() - begun
        state[outcome] = state.get(outcome, 0) + 1
        if outcome in {"late", "stopped", "memory"}:
            state.setdefault("noted", []).append([number, name, outcome])
        if took > state.get("slowest", [0.0])[0]:
            state["slowest"] = [round(took, 3), number, name]
        if number % 50 == 0:
            state["peak MB"] = max(state.get("peak MB", 0), peak())
        state["next"] = number + 1
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--state", type=Path, help="JSON file that keeps how far it is")
    parser.add_argument("--only", type=int, help="run this one case and show what comes out")
    options = parser.parse_args()
    if options.only is not None:
        name, data = case(options.only)
        print(name, len(data), "bytes:", check(data))
        return 0
    state = {"next": 0}
    if options.state and options.state.exists():
        state = json.loads(options.state.read_text())
    begun = time.time()
    for start in range(state["next"], options.count, 250):
        run(start, min(start + 250, options.count), state)
        if options.state:
            options.state.write_text(json.dumps(state, indent=1))
    shown = {key: value for key, value in state.items() if key not in {"failed", "noted"}}
    print(json.dumps({**shown, "seconds": round(time.time() - begun), "noted": state.get("noted", [])[:20]}))
    for failure in state.get("failed", []):
        print(*failure, sep="\n")
    return bool(state.get("failed"))


if __name__ == "__main__":
    sys.exit(main())
