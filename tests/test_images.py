"""Images from anywhere: an upright RGB picture or one sentence, and nothing else."""

import csv
import io
import os
import random
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sp_core import images
from sp_core.errors import SpError
from sp_core.images import open_image, png, resize_and_crop, to_picture, to_tensor


def encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode="RGB", size=(24, 16)):
    return Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1])).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16", "I", "CMYK", "F", "LAB", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    kind = "PNG" if mode in {"RGB", "L", "1", "P", "RGBA", "LA", "I;16"} else "TIFF"
    values = np.arange(24 * 16).reshape(16, 24)
    if mode in {"I;16", "I"}:
        image = Image.fromarray((values * 170).astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "F":
        image = Image.fromarray(values.astype(np.float32) / 400)
    elif mode == "LA":
        image = noise("L").convert("LA")
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            noise(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = noise(mode)
    found = open_image(encoded(image, kind))
    assert found.mode == "RGB" and found.size == (24, 16)
    assert np.asarray(found).std() > 0


def test_values_survive():
    image = noise()
    assert np.array_equal(np.asarray(open_image(encoded(image))), np.asarray(image))
    grey = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
    assert np.asarray(open_image(encoded(grey)))[0, :, 0].tolist() == [0, 1, 255]
    seethrough = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert open_image(encoded(seethrough)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(seethrough), background=(0, 0, 9)).getpixel((0, 0)) == (0, 0, 9)


def test_colour_profiles_of_rgb_files_are_not_applied():
    """Networks are trained on the stored values; converting them cost agreement with published predictions."""
    image = noise()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(profile)
    red, blue = swapped.find(b"rXYZ"), swapped.find(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"  # a profile that turns red into blue
    found = open_image(encoded(image, icc_profile=bytes(swapped)))
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    image = noise()
    found = open_image(encoded(image, exif=exif))
    assert found.size == ((24, 16) if orientation < 5 else (16, 24))
    assert (np.asarray(found).shape == np.asarray(image).shape) == (orientation < 5)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_sizes_are_checked_before_a_pixel_is_decoded():
    header = bytearray(encoded(Image.new("L", (1, 1))))
    header[16:24] = struct.pack(">II", 50_000, 50_000)
    import zlib

    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpError, match=r"far larger than the 40 megapixels that are decoded at most"):
        open_image(bytes(header))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "The image cannot be read as an image"),
        (b"not an image", "cannot be read as an image"),
        (b"\x89PNG\r\n\x1a\n", "save it again as PNG or JPEG"),
        ("/nowhere/cat.png", "cannot be opened: No such file"),
        ("/", "cannot be opened: Is a directory"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
    ],
)
def test_what_is_no_image(source, message):
    with pytest.raises(SpError, match=message):
        open_image(source)


def test_files_that_are_too_large(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    data = encoded(noise())
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(SpError, match=r"an image may have at most"):
            open_image(source)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_images_give_a_picture_or_a_sentence(kind):
    whole = encoded(noise(), kind)
    dice = random.Random(11)
    refused = 0
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 5)):
            at = dice.randrange(len(data))
            if dice.random() < 0.6:
                data[at] = dice.randrange(256)
            else:
                data = data[:at] + data[at + dice.randint(1, 30) :] or bytearray(b"\0")
        try:
            assert open_image(bytes(data)).mode == "RGB"
        except SpError as error:
            refused += 1
            assert len(str(error)) < 300
    assert refused > 0


HOSTILE = """
import csv, os, sys, time
from pathlib import Path
from sp_core.errors import SpError
from sp_core.images import open_image
folder = Path(sys.argv[1])
expected = {row["file"]: row for row in csv.DictReader((folder / "expected_pillow13.csv").open())}
tried = 0
for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".csv"):
    tried += 1
    ours = "ok"
    try:
        image = open_image(path)
        assert image.mode == "RGB" and min(image.size) > 0, path
    except SpError as error:
        ours = "err"
        assert path.name in str(error) and len(str(error)) < 300, error
    row = expected.get(path.relative_to(folder).as_posix(), {})
    if row.get("pillow13") == "ok" and ours == "err" and eval("*".join(row["size"].split("x"))) <= 40_000_000:
        print("refused", path.name)
print("tried", tried)
"""


@pytest.mark.slow
def test_hostile_images(real_data):
    """In a process of its own: what libtiff prints about damaged files goes to that process's standard error."""
    folder = real_data / "images_hostile"
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((folder / "expected_pillow13.csv").read_text().splitlines()))
    assert done.stdout.split() == ["tried", str(len(rows))]


def test_crop_is_centred():
    for size in [(331, 257), (257, 331), (300, 224), (224, 224), (50, 900)]:
        wide = resize_and_crop(Image.new("RGB", size), 256, (224, 224))
        assert wide.size == (224, 224)
    ramp = Image.fromarray(np.tile(np.arange(240, dtype=np.uint8), (240, 1)))
    row = np.asarray(resize_and_crop(ramp, 240, (224, 224)))[0]
    assert (row[0], row[-1]) == (8, 231)
    for extra, left in [(1, 1), (3, 1), (5, 3), (7, 3)]:  # of an odd margin, the part behind the crop is even
        ramp = Image.fromarray(np.tile(np.arange(40 + extra, dtype=np.uint8), (40, 1)))
        assert np.asarray(resize_and_crop(ramp, 40, (40, 40)))[0, 0] == left


def test_tensor_and_picture_are_inverse():
    image = noise()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 24) and tensor.dtype == torch.float32 and 0 <= tensor.min() <= tensor.max() <= 1
    assert np.array_equal(np.asarray(to_picture(tensor)), np.asarray(image))
    assert open_image(png(image)).tobytes() == image.tobytes()
    assert to_tensor(image, 1).shape == (1, 16, 24) and to_tensor(image, 5).shape == (5, 16, 24)
    assert to_picture(torch.rand(1, 4, 4)).mode == "RGB"
