"""Image sets by name: folders, zips, CIFAR-10 in its three layouts, and the first n of each."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sp_core as sp
from sp_core import datasets
from sp_core.datasets.cifar10 import Cifar10
from sp_core.datasets.folder import Folder
from sp_core.errors import SpError


def _png(colour, size=(20, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "cats/a.png": _png((250, 0, 0)),
    "cats/b.png": _png((0, 250, 0)),
    "cats/c.png": _png((0, 0, 250)),
    "dogs/a.png": _png((10, 10, 10)),
    "dogs/notes.txt": b"not a picture",
    "dogs/.hidden.png": _png((1, 2, 3)),
}


def _folder(root, files=FILES):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def _zip(path, files=FILES, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return path


@pytest.fixture
def net():
    return sp.Network(nn.Conv2d(1, 2, 3), input_size=(1, 8, 6), name="grey")


def test_folder_goes_by_turns_through_the_classes(tmp_path):
    found = datasets.open(_folder(tmp_path / "set"))
    assert found.classes == ("cats", "dogs") and len(found) == 4 and found.name == "set"
    images, labels = found.batch(0, 4)
    assert images.shape == (4, 3, 64, 64) and labels.tolist() == [0, 1, 0, 0] and labels.dtype == torch.int64
    assert [found.file(i) for i in range(4)] == ["cats/a.png", "dogs/a.png", "cats/b.png", "cats/c.png"]
    assert images[2, :, 0, 0].mul(255).round().tolist() == [0, 250, 0]


def test_zip_is_the_folder_whatever_it_is_wrapped_in(tmp_path):
    plain = Folder(_folder(tmp_path / "set"))
    for top in ("", "wrapped/", "a/b/"):
        packed = Folder(_zip(tmp_path / "set.zip", top=top))
        assert packed.classes == plain.classes and len(packed) == 4
        assert torch.equal(packed.batch(0, 4)[0], plain.batch(0, 4)[0])
        assert packed.picture(1).getpixel((0, 0)) == (10, 10, 10)


def test_flat_folder_has_no_classes(tmp_path):
    found = Folder(_folder(tmp_path / "flat", {"x.png": _png((9, 9, 9)), "y.jpg": _png((8, 8, 8))}))
    assert found.classes == () and found.batch(0, 2)[1].tolist() == [-1, -1]


def test_batch_is_what_the_network_sees(tmp_path, net):
    found = Folder(_folder(tmp_path / "set"))
    images, _ = found.batch(1, 3, net)
    assert images.shape == (2, 1, 8, 6)
    assert torch.equal(images[0], net.view(found.picture(1)))


def test_fingerprint_follows_content_names_and_order(tmp_path):
    base = Folder(_folder(tmp_path / "one")).fingerprint
    assert Folder(_folder(tmp_path / "two")).fingerprint == base, "the same content elsewhere"
    changed = FILES | {"cats/b.png": _png((0, 251, 0))}
    moved = {name.replace("dogs", "dots"): data for name, data in FILES.items()}
    prints = {base} | {
        Folder(_folder(tmp_path / f"x{i}", files)).fingerprint for i, files in enumerate((changed, moved))
    }
    assert len(prints) == 3


@pytest.mark.parametrize("kind", ["folder", "textures", "wrapped"])
def test_first_images_of_a_longer_set_are_the_shorter_set(tmp_path, kind):
    long = Folder(_folder(tmp_path / "set")) if kind == "folder" else datasets.Textures(9, seed=4, size=32)
    if kind == "wrapped":
        long = type("Other", (), {"__len__": lambda s: 9, "name": "o", "classes": ("a",), "fingerprint": "f" * 16,
                                  "batch": lambda s, *a: datasets.Textures(9, size=32).batch(*a),
                                  "picture": lambda s, i: None})()  # fmt: skip
    short = datasets.take(long, 3)
    assert len(short) == 3 and short.fingerprint != long.fingerprint
    assert short.fingerprint == datasets.take(datasets.take(long, 4), 3).fingerprint or kind == "wrapped"
    assert torch.equal(short.batch(0, 99)[0], long.batch(0, 3)[0])
    assert datasets.take(long, 500) is long


def test_textures_by_name():
    a, b = datasets.open("textures", count=5), datasets.open("textures:3", count=5)
    assert len(datasets.open("textures")) == 10_000 and (a.seed, b.seed) == (0, 3)
    assert a.fingerprint == datasets.Textures(5).fingerprint != b.fingerprint
    assert datasets.open(a) is a and len(datasets.open(a, count=2)) == 2


def test_select_takes_any_order_and_repeats():
    found = datasets.Textures(30, size=32)
    images = datasets.select(found, [7, 2, 7])
    assert torch.equal(images[0], images[2]) and torch.equal(images[1], found.batch(2, 3)[0][0])


def test_one_damaged_picture_is_named(tmp_path):
    files = {"x.png": FILES["cats/a.png"], "y.png": FILES["cats/a.png"][:40]}
    with pytest.raises(SpError, match=r"y\.png cannot be read as an image"):
        Folder(_folder(tmp_path / "set", files)).batch(0, 2)
    with pytest.raises(SpError, match=r"y\.png in set\.zip: The image cannot be read"):
        Folder(_zip(tmp_path / "set.zip", files)).batch(0, 2)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("textures:x", "textures:SEED with a whole number"),
        ("no/such/folder", "is not a data set: write textures"),
        ("cifar10:no/such", "is not a folder; write cifar10:PATH"),
        ("", "is not a data set"),
    ],
)
def test_mistakes_say_what_to_write(source, words):
    with pytest.raises(SpError, match=words):
        datasets.open(source)


def test_empty_folder_broken_zip_and_wrong_numbers(tmp_path):
    with pytest.raises(SpError, match="holds no pictures"):
        datasets.open(str(tmp_path))
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(SpError, match="cannot be read as a zip"):
        datasets.open(str(tmp_path / "bad.zip"))
    with pytest.raises(SpError, match="does not hold the test part of CIFAR-10"):
        datasets.open(f"cifar10:{tmp_path}")
    with pytest.raises(SpError, match="images 0 to 4; got 5"):
        datasets.select(datasets.Textures(5), [1, 5])
    with pytest.raises(SpError, match="At least 1 image"):
        datasets.open("textures", count=0)


def _cifar(root, layout, pixels, labels):
    """``pixels`` [n, 32, 32, 3] as the test part, in one of the three layouts."""
    rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), 3072)
    if layout == "python":
        root = root / "cifar-10-batches-py"
        root.mkdir(parents=True)
        table = {b"data": rows, b"labels": labels.tolist(), b"filenames": [b"x.png"] * len(labels)}
        (root / "test_batch").write_bytes(pickle.dumps(table, protocol=2))
        return root.parent
    root.mkdir()
    if layout == "bin":
        (root / "test_batch.bin").write_bytes(np.concatenate([labels[:, None].astype(np.uint8), rows], 1).tobytes())
    else:
        (root / "test").mkdir()
        np.save(root / "test_labels.npy", labels)
        for i in range(2):
            half = pixels[i * 3 : i * 3 + 3].reshape(96, 32, 3)
            Image.fromarray(half).save(root / "test" / f"{i:03d}.webp", lossless=True)
    return root


def test_cifar10_is_the_same_in_all_layouts(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    labels = np.array([3, 9, 0, 1, 1, 7])
    net = sp.Network(nn.Conv2d(3, 2, 3), input_size=(3, 48, 48), name="other size")
    prints = set()
    for layout in ("python", "bin", "webp"):
        found = Cifar10(_cifar(tmp_path / layout, layout, pixels, labels))
        images, classes = found.batch(1, 4)
        assert torch.equal((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1), torch.from_numpy(pixels[1:4]))
        assert classes.tolist() == [9, 0, 1] and len(found) == 6 and found.name == "CIFAR-10 test"
        assert np.array_equal(np.asarray(found.picture(5)), pixels[5])
        assert torch.equal(found.batch(2, 3, net)[0][0], net.view(found.picture(2)))
        prints.add((found.fingerprint, datasets.take(found, 4).fingerprint))
    assert len(prints) == 1 and len(prints.pop()) == 2


def test_cifar10_pickle_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(SpError, match=r"names builtins\.exec, which is not data"):
        len(Cifar10(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_real_cifar10(real_data):
    found = datasets.open(f"cifar10:{real_data / 'cifar10'}")
    assert len(found) == 10_000 and found.batch(0, 2)[0].shape == (2, 3, 32, 32)
    assert np.bincount(found.batch(0, 10_000)[1].numpy()).tolist() == [1000] * 10
