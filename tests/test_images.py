"""Images from anywhere: an upright RGB picture or one sentence, and nothing else."""

import csv
import io
import pickle
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import sp_core as sp
from sp_core import decoding_process, images
from sp_core.errors import SpError
from sp_core.figures.frame import framed
from sp_core.images import crop_box, open_image, png, resize_and_crop, to_picture, to_tensor


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


def swapped_profile() -> bytes:
    """A profile of sRGB whose red is blue: what it makes of a picture is known without a colour engine."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_converted_by_their_profile_and_networks_are_fed_the_stored_values(mode):
    image = noise("RGB").quantize(32) if mode == "P" else noise(mode)
    data = encoded(image, icc_profile=swapped_profile())
    found = images.open_with_notes(data)
    stored = np.asarray(image.convert("RGB"))
    assert np.abs(np.asarray(found.image).astype(int) - stored[..., ::-1]).max() <= 2
    assert found.notes == ("colours of profile “sRGB built-in” converted to sRGB",)
    assert np.array_equal(np.asarray(resize_and_crop(found.image, 16, (16, 24))), stored)
    assert np.array_equal(np.asarray(images.as_stored(pickle.loads(pickle.dumps(found.image)))), stored)
    assert np.array_equal(np.asarray(images.as_stored(found.image.copy())), stored)
    drawn = found.image.copy()
    drawn.putpixel((3, 3), (1, 2, 3))
    for changed in (drawn, found.image.crop((0, 0, 16, 16)), found.image.transpose(Image.Transpose.ROTATE_180)):
        assert images.as_stored(changed) is changed, "a picture that was changed is what it looks like"


def test_profiles_that_change_nothing_or_are_broken():
    image = noise()
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (plain, plain[:200], b"no profile", swapped_profile()[:-40]):
        found = images.open_with_notes(encoded(image, icc_profile=profile))
        assert images.as_stored(found.image) is found.image
        assert np.array_equal(np.asarray(found.image), np.asarray(image))
    cmyk = images.open_with_notes(encoded(image.convert("CMYK"), "TIFF", icc_profile=plain))
    assert cmyk.notes == ("CMYK converted to RGB without a colour profile",)  # a profile of RGB says nothing of CMYK


def test_grey_profiles(tmp_path):
    grey = ImageCms.ImageCmsProfile(io.BytesIO(grey_profile(1.0)))
    assert grey.profile.xcolor_space.strip() == "GRAY"
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    found = images.open_with_notes(encoded(ramp, icc_profile=grey_profile(1.0)))
    linear = np.arange(256) / 255  # by IEC 61966-2-1
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(found.image)[0, :, 1] - srgb).max() < 2
    assert np.array_equal(np.asarray(images.as_stored(found.image))[0, :, 1], np.arange(256))
    assert found.notes[0].startswith("grey") and found.notes[0].endswith("converted to sRGB")


def grey_profile(gamma: float) -> bytes:
    """A monitor profile of grey values, written by hand (ICC.1:2001): header, a tone curve and a white point."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(90)
    text += bytes(-len(text) % 4)
    tags, body, at = b"", b"", 128 + 4 + 3 * 12
    for name, data in ((b"kTRC", curve), (b"wtpt", white), (b"desc", text)):
        tags += name + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


# EXIF 2.32, table 6: what the stored rows and columns are, as turns of the upright picture's array.
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x112] = orientation
    upright = np.asarray(noise())
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    found = images.open_with_notes(encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(np.asarray(found.image), upright)
    assert [note for note in found.notes if "EXIF" in note] == list(found.notes)
    assert bool(found.notes) == (orientation > 1)


def test_notes_say_what_was_done():
    def notes(data):
        return images.open_with_notes(data).notes

    assert notes(encoded(noise())) == notes(encoded(noise(), "JPEG")) == ()
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert notes(encoded(clear)) == ("transparent parts lie on white",)
    assert notes(encoded(noise("RGBA"))) == (), "opaque everywhere"
    assert images.open_with_notes(encoded(clear), (0, 0, 9)).notes == ("transparent parts lie on RGB (0, 0, 9)",)
    assert notes(encoded(Image.new("I;16", (2, 2), 9))) == ("16 bits scaled to 8",)
    assert notes(encoded(noise("CMYK"), "TIFF")) == ("CMYK converted to RGB without a colour profile",)
    assert notes(encoded(Image.new("LAB", (2, 2)), "TIFF")) == ("LAB converted to sRGB",)
    assert notes(encoded(Image.new("F", (2, 1), -3.0), "TIFF")) == (
        "its values from -3 to -3 are stretched from black to white",
    )
    large = notes(encoded(Image.new("L", (4200, 4200)), "JPEG"))
    assert large == ("4200×4200 pixels, decoded at 1/2 of that",)
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        frames = [Image.new("RGB", (5, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "only its first frame is used" in notes(data), kind
        assert open_image(data).getpixel((0, 0))[1] < 9


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def blank_png(width: int, height: int) -> bytes:
    """A whole PNG of black pixels, 1 bit each, packed a thousandfold."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def peak(process) -> int:
    """The most memory a process has had, in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((30_000, 30_000), r"far larger than the 40 megapixels that are decoded at most"),
        ((6400, 6400), r"6400×6400 = 41 megapixels; at most 40 are decoded. Make it smaller"),
    ],
)
def test_a_bomb_is_refused_before_it_is_decoded(size, message):
    with pytest.raises(SpError, match=message):
        open_image(blank_png(*size))
    assert peak(decoding_process._idle[-1].process) < 100
    assert open_image(blank_png(640, 640)).size == (640, 640)


SLOW = "import time\nwhile True: time.sleep(1)"
HUNGRY = "bytearray(2**31)"
CRASHING = "import os; os.abort()"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (SLOW, "The image takes longer than 2 s to decode; make it smaller"),
        (HUNGRY, "The image needs more than the 1.5 GB of memory that decoding may take"),
        (CRASHING, "The image made the decoder stop; save it again as PNG or JPEG"),
        ("raise KeyboardInterrupt", "The image made the decoder stop"),
        ("raise ZeroDivisionError('x' * 999)", r"The image cannot be read as an image \(x{120}\)"),
    ],
)
def test_time_and_memory_are_bounded_whatever_a_decoder_does(code, message, monkeypatch, tmp_path):
    """The real helper process, in which Pillow's reader of GIF has been replaced by something that misbehaves."""
    (tmp_path / "sitecustomize.py").write_text(
        "from PIL import GifImagePlugin\n"
        f"def misbehave(self):\n    exec({code!r})\n"
        "GifImagePlugin.GifImageFile._open = misbehave\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(decoding_process, "DEADLINE", 2.0)
    monkeypatch.setattr(decoding_process, "_idle", [])
    with pytest.raises(SpError, match=message):
        open_image(encoded(noise("L"), "GIF"))
    assert open_image(encoded(noise("L"))).size == (24, 16), "the next picture is decoded"
    decoding_process._close_all()


def test_many_threads_decode_at_once():
    sizes = [(8 + i, 5) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(open_image, [encoded(noise(size=size)) for size in sizes]))
    assert [image.size for image in found] == sizes
    assert 1 <= len(decoding_process._idle) <= decoding_process.AT_ONCE


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS\0\1", b"<svg/>", b"BLP2"]
)
def test_formats_that_run_programs_or_are_rare_are_not_even_tried(data):
    with pytest.raises(SpError, match=r"its content is none of JPEG, PNG, GIF, .*TGA, or is damaged"):
        open_image(data + bytes(200))


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


@pytest.mark.slow
def test_hostile_images(real_data, monkeypatch):
    """All of them: a picture of the size Pillow finds, upright, or one sentence where it finds none."""
    folder = real_data / "images_hostile"
    rows = list(csv.DictReader((folder / "expected_pillow13.csv").read_text().splitlines()))
    monkeypatch.setattr(decoding_process, "DEADLINE", 60.0)  # a busy machine does not make an image a bad one
    assert len(rows) >= 200
    for row in rows:
        path = folder / row["file"]
        try:
            image = open_image(path)
        except SpError as error:
            assert path.name in str(error) and len(str(error)) < 300 and "\n" not in str(error)
            assert row["pillow13"] == "err", (row["file"], str(error))
        else:
            assert row["pillow13"] == "ok", row["file"]
            width, height = map(int, row["size"].split("x"))
            turned = row["orientation"] in {"5", "6", "7", "8"} and row["fmt"] not in {"TIFF", "AVIF"}
            assert image.mode == "RGB" and image.size == ((height, width) if turned else (width, height)), row["file"]


@pytest.mark.slow
def test_photos_with_eight_orientations_are_one_photo(real_data):
    folder = real_data / "images_hostile"
    upright = np.asarray(open_image(folder / "exif-orientation" / "Landscape_1.jpg"), dtype=float)
    for number in (3, 5, 7):
        other = np.asarray(open_image(folder / "exif-orientation" / f"Landscape_{number}.jpg"), dtype=float)
        assert np.abs(other - upright).mean() < 12 < np.abs(other[::-1] - upright).mean()


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


def test_the_frame_is_where_the_crop_is():
    """A picture whose values are its own coordinates says where each pixel of the crop comes from."""
    for size, resize, crop in [
        ((640, 480), 256, (224, 224)),
        ((301, 777), 40, (32, 32)),
        ((90, 30), 28, (28, 28)),
        ((500, 300), 200, (120, 200)),
        ((31, 30), 64, (64, 64)),
    ]:
        x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
        left, top, right, bottom = crop_box(size, resize, crop)
        across = np.asarray(resize_and_crop(Image.fromarray(x), resize, crop))[crop[0] // 2]
        down = np.asarray(resize_and_crop(Image.fromarray(y), resize, crop))[:, crop[1] // 2]
        step_x, step_y = (right - left) / crop[1], (bottom - top) / crop[0]
        inside = slice(2, -2)  # at the border of the picture, the filter is cut off
        np.testing.assert_allclose(across[inside], (left + step_x * (np.arange(crop[1]) + 0.5) - 0.5)[inside], atol=0.1)
        np.testing.assert_allclose(down[inside], (top + step_y * (np.arange(crop[0]) + 0.5) - 0.5)[inside], atol=0.1)
        assert left >= 0 and top >= 0 and right <= size[0] + 1e-9 and bottom <= size[1] + 1e-9


def test_the_frame_is_drawn_around_what_is_seen():
    picture = Image.new("RGB", (400, 200), (200, 100, 50))
    small = framed(picture, (100, 0, 300, 200), (200, 200))
    assert small.size == (200, 100)
    assert small.getpixel((100, 50)) == (200, 100, 50) and sum(small.getpixel((20, 50))) < 200, "the rest is dimmed"
    assert [small.getpixel((x, 50)) for x in range(50, 56)] == [(0, 0, 0)] * 2 + [(255, 255, 255)] * 4
    assert [small.getpixel((x, 50)) for x in (149, 146)] == [(0, 0, 0), (255, 255, 255)]
    for whole in (None, (0, 0, 400, 200), (0.4, 0, 400, 200)):
        assert framed(picture, whole, (200, 200)).getcolors() == [(20_000, (200, 100, 50))]
    assert framed(Image.new("RGB", (32, 16_000)), (0, 7984, 32, 8016), (360, 480)).size == (1, 480)
    assert framed(noise(size=(4, 4)), (0, 1, 4, 3), (400, 400)).size == (400, 400)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_channels_are_made_of_a_colour_photo_and_shown(channels):
    image = noise(size=(40, 30))
    net = sp.Network(torch.nn.Conv2d(channels, 2, 3), input_size=(channels, 28, 32))
    seen = net.view(image)
    assert seen.shape == (channels, 28, 32)
    crop = np.asarray(net.crop(image), dtype=np.float32) / 255
    grey = crop @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    for channel, plane in enumerate(seen.numpy()):
        expected = grey if channels < 3 else crop[..., channel % 3]
        assert np.abs(plane - expected).max() < 0.003
    shown = np.asarray(to_picture(seen))
    assert (np.ptp(shown, axis=2).max() == 0) == (channels < 3), "grey is shown grey"
    assert bool(images.channels_in_words(channels)) == (channels != 3)


def test_tensor_and_picture_are_inverse():
    image = noise()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 24) and tensor.dtype == torch.float32 and 0 <= tensor.min() <= tensor.max() <= 1
    assert np.array_equal(np.asarray(to_picture(tensor)), np.asarray(image))
    assert open_image(png(image)).tobytes() == image.tobytes()
    assert to_tensor(image, 1).shape == (1, 16, 24) and to_tensor(image, 5).shape == (5, 16, 24)
    assert to_picture(torch.rand(1, 4, 4)).mode == "RGB"
