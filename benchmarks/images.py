"""What the largest pictures that a person may bring cost to decode, beside Pillow alone; and what hostile ones cost.

    python -m benchmarks.images            # writes benchmarks/results/images.json

Ours decodes in a process of its own, turns upright, converts to sRGB and sends the pixels back; Pillow's time is that
of ``Image.open(...).convert("RGB")`` here (after ``draft`` for JPEG, as ours). Interleaved, medians of five. Memory is
the most that the decoding process had. The hostile ones are built to be slow: hundreds of scans, millions of
markers; what counts is how long it took until their sentence was there.
"""

import io
import statistics
import struct
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import record
from sp_core import decoding_process
from sp_core.decoding import ENOUGH, MAX_PIXELS
from sp_core.errors import SpError
from sp_core.images import open_image

ROUNDS = 5


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width, height, mode="RGB"):
    """Smooth colours under a little noise: compresses as a photo does."""
    dice = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    planes = np.stack([x / width, y / height, (x + y) / (width + height)], -1) * 255
    planes += dice.normal(0, 6, (height, width, 1)).astype(np.float32)
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8)).convert(mode)


def deep(width, height):
    return Image.fromarray(np.asarray(photo(width, height, "L"), np.uint16) * 257)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def legitimate():
    side = int(MAX_PIXELS**0.5)
    return {
        "JPEG, 40 megapixels": encoded(photo(side, side), "JPEG", quality=92),
        "JPEG, 40 megapixels, progressive": encoded(photo(side, side), "JPEG", quality=92, progressive=True),
        "PNG, 24 megapixels": encoded(photo(6000, 4000), "PNG", compress_level=3),
        "PNG, 24 megapixels, transparent": encoded(photo(6000, 4000, "RGBA"), "PNG", compress_level=1),
        "TIFF, 24 megapixels, 16 bits": encoded(deep(6000, 4000), "TIFF", compression="tiff_lzw"),
        "TIFF, 12 megapixels, CMYK": encoded(photo(4000, 3000, "CMYK"), "TIFF", compression="tiff_deflate"),
        "WebP, 12 megapixels": encoded(photo(4000, 3000), "WEBP", quality=90, method=0),
        "AVIF, 12 megapixels": encoded(photo(4000, 3000), "AVIF", quality=70, speed=10),
        "JPEG 2000, 4 megapixels": encoded(photo(2000, 2000), "JPEG2000", quality_layers=[20]),
        "JPEG, a photo of 500 × 375": encoded(photo(500, 375), "JPEG"),
    }


def hostile():
    blank = encoded(photo(8, 8), "PNG")
    plain = encoded(Image.new("L", (6324, 6324), 128), "JPEG", progressive=True, quality=50)
    last = plain.split(b"\xff\xda")[-1][:-2]
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    bomb = b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return {
        "JPEG with 500 scans": plain[:-2] + (b"\xff\xda" + last) * 500 + b"\xff\xd9",
        "JPEG with 15 million markers": b"\xff\xd8" + b"\xff\xe1\0\2" * 15_000_000 + encoded(photo(8, 8), "JPEG")[2:],
        "PNG with 5 million chunks": blank[:33] + chunk(b"abCd", b"") * 5_000_000 + blank[33:],
        "PNG of 30 000 × 30 000": blank[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", bomb) + chunk(b"IEND", b""),
    }


def plainly(data):
    image = Image.open(io.BytesIO(data))
    if image.format == "JPEG":
        image.draft("RGB", (ENOUGH, ENOUGH))
    return image.convert("RGB")


def timed(call):
    start = time.perf_counter()
    try:
        call()
        answer = "a picture"
    except SpError as error:
        answer = str(error)
    return time.perf_counter() - start, answer


def peak_of(data):
    """Seconds, answer and the most memory in MB of a fresh decoding process."""
    decoding_process._close_all()
    timed(lambda: open_image(b"starts the process"))
    process = decoding_process._idle[-1].process
    took, answer = timed(lambda: open_image(data))
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        memory = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        memory = None  # it was stopped
    return took, answer, memory


def main():
    details = {}
    for name, data in legitimate().items():
        _, answer, memory = peak_of(data)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(timed(lambda data=data: open_image(data))[0])
            theirs.append(timed(lambda data=data: plainly(data))[0])
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        details[name] = {
            "MB": round(len(data) / 1e6, 1),
            "seconds": round(statistics.median(ours), 3),
            "ours / Pillow": round(statistics.median(each), 2),
            "from": round(min(each), 2),
            "to": round(max(each), 2),
            "peak MB": memory,
            "answer": answer,
        }
        print(name, details[name])
    for name, data in hostile().items():
        took, answer, memory = peak_of(data)
        details[name] = {
            "MB": round(len(data) / 1e6, 1),
            "seconds": round(took, 2),
            "peak MB": memory,
            "answer": answer,
        }
        print(name, details[name])
    ratios = [row["ours / Pillow"] for row in details.values() if "ours / Pillow" in row]
    median = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    slowest = max(row["seconds"] for row in details.values())
    memory = max(row["peak MB"] or 0 for row in details.values())
    record.write(
        "images",
        "Ten large pictures as people bring them and four built to be slow; medians of five, interleaved.",
        [
            record.line("decoding a picture in a bounded process", "Pillow alone", round(median, 2), spread),
            record.line(
                "longest answer, hostile files included", "the limit of 5 s", f"{slowest:.1f} s", "", "below 5 s"
            ),
            record.line("memory of the decoding process", "its limit", f"{memory} of 1536 MB"),
        ],
        details,
        ["pillow", "numpy"],
    )


if __name__ == "__main__":
    main()
