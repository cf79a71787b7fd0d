"""Image sets for machines beside this one: pictures at an address, and Parquet of encoded images."""

import io
import json
import pickle

import pytest
import torch
from PIL import Image
from torch import nn

import sp_core as sp
from sp_core import cli
from sp_core.commands import index as verb
from sp_core.datasets import open as open_dataset
from sp_core.datasets.bucket import Bucket
from sp_core.datasets.folder import Folder
from sp_core.datasets.image_table import ImageTable
from sp_core.errors import SpError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def _png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"cats/a.png": 10, "cats/b.png": 20, "cats/c.png": 30, "dogs/a.png": 40}


@pytest.fixture
def folder(tmp_path):
    for name, value in FILES.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(value))
    (tmp_path / "set" / "dogs" / "notes.txt").write_text("no picture")
    (tmp_path / "set" / "dogs" / ".hidden.png").write_bytes(_png(1))
    return tmp_path / "set"


@pytest.fixture
def net():
    return sp.Network(nn.Sequential(nn.Conv2d(1, 2, 3)), input_size=(1, 8, 6), name="grey")


def _write(path, values, labels=None, group=3, image=None, metadata=None):
    columns = {"image": [_png(value) for value in values] if image is None else image}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns, metadata=metadata), path, row_group_size=group)
    return path


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["file", "memory"])  # of pyarrow's own and, through it, of fsspec
def test_a_bucket_is_the_folder_at_its_address(folder, net, scheme):
    address = f"file://{folder}"
    if scheme == "memory":
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").put(str(folder), "/somewhere/set", recursive=True)
        address = "memory://somewhere/set"
    plain, found = Folder(folder), open_dataset(address)
    assert isinstance(found, Bucket) and (found.name, found.classes, len(found)) == ("set", ("cats", "dogs"), 4)
    assert [found.file(i) for i in range(4)] == ["cats/a.png", "dogs/a.png", "cats/b.png", "cats/c.png"]
    for of in (None, net):
        for mine, theirs in zip(found.batch(1, 4, of), plain.batch(1, 4, of), strict=True):
            assert torch.equal(mine, theirs)
    sent = pickle.loads(pickle.dumps(found))
    assert sent.fingerprint == found.fingerprint and torch.equal(sent.batch(0, 4)[0], plain.batch(0, 4)[0])


def test_a_bucket_is_named_by_its_objects_and_their_times(folder):
    address = f"file://{folder}"
    before = Bucket(address).fingerprint
    assert Bucket(address).fingerprint == before == open_dataset(f"{address}/").fingerprint
    assert open_dataset(address, 3).fingerprint not in {before, open_dataset(address, 2).fingerprint}
    assert isinstance(open_dataset(address, 3), Bucket)
    (folder / "cats/b.png").write_bytes(_png(20))
    assert Bucket(address).fingerprint != before, "written again"


def test_a_damaged_or_vanished_object_is_no_lost_connection(folder, tmp_path, monkeypatch, capsys):
    (folder / "cats/b.png").write_bytes(_png(20)[:40])
    found = Bucket(f"file://{folder}")
    with pytest.raises(SpError, match=r"cats/b\.png in file://.*: The image cannot be read as an image"):
        found.picture(2)
    (folder / "dogs/a.png").unlink()
    with pytest.raises(SpError, match=r"dogs/a\.png is no longer in file://"):
        found.picture(1)

    class Lost:
        def open_input_stream(self, path):
            raise OSError("no route to host")

    monkeypatch.setattr(found, "_system", Lost())
    with pytest.raises(OSError, match="no route to host"):
        found.batch(0, 1)
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 2, 3)), "tiny", (3, 8, 8))
    monkeypatch.setattr(verb, "load", lambda args: net)
    monkeypatch.setattr("sp_core.datasets.open", lambda *_, **__: found)
    assert cli.main(["index", "any", "--out", str(tmp_path / "index")]) == 2
    assert "set cannot be read (no route to host); the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere://a/b", r"nowhere://a/b cannot be opened .*; write an address such as s3://bucket/folder"),
        ("file:///no/such/folder", "holds no pictures"),
        ("no/such/folder", "is not a data set"),
        ("no/such.parquet", "holds no .parquet files"),
    ],
)
def test_mistakes_say_what_to_write(source, words):
    with pytest.raises(SpError, match=words):
        open_dataset(source)


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_rows_are_numbered_through_files_and_groups(tmp_path, net):
    _write(tmp_path / "b.parquet", [60, 70], ["dog", None])
    _write(tmp_path / "a.parquet", [10, 20, 30, 40, 50], ["cat", "dog", "cat", "cat", "emu"])
    for source in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        found = open_dataset(source)
        assert isinstance(found, ImageTable) and len(found) == 7 and found.classes == ("cat", "dog", "emu")
        images, labels = found.batch(1, 99)
        assert images[:, 0, 0, 0].mul(255).round().tolist() == [20, 30, 40, 50, 60, 70] and images.shape[1:] == (
            3,
            64,
            64,
        )
        assert labels.tolist() == [1, 0, 0, 2, 1, -1] and labels.dtype == torch.int64
    assert torch.equal(found.batch(3, 4, net)[0][0], net.view(found.picture(3)))
    sent = pickle.loads(pickle.dumps(found))
    assert sent.fingerprint == found.fingerprint and torch.equal(sent.batch(0, 7)[0], found.batch(0, 7)[0])
    one = open_dataset(tmp_path / "b.parquet")
    assert (one.name, len(one), one.picture(1).getpixel((0, 0))) == ("b", 2, (70, 0, 185))


def test_the_layout_of_hugging_face_with_its_class_names(tmp_path):
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    rows = [{"bytes": _png(value), "path": f"{value}.png"} for value in (10, 20, 30)]
    path = _write(tmp_path / "train-00000-of-00001.parquet", [], [1, 0, -1], image=rows,
                  metadata={"huggingface": json.dumps({"info": {"features": features}})})  # fmt: skip
    found = ImageTable(path)
    assert found.classes == ("cat", "dog") and found.batch(0, 3)[1].tolist() == [1, 0, -1]
    assert found.picture(2).getpixel((0, 0)) == (30, 0, 225)


def test_without_labels_there_are_no_classes(tmp_path):
    found = ImageTable(_write(tmp_path / "a.parquet", [10, 20]))
    assert found.classes == () and found.batch(0, 2)[1].tolist() == [-1, -1]
    assert ImageTable(_write(tmp_path / "b.parquet", [10, 20], [3, None])).classes == ("0", "1", "2", "3")


def test_an_index_over_a_table_grows_by_a_file_and_finds_its_images(tmp_path, net):
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data" / "a.parquet", range(0, 100, 10), [0, 1] * 5)
    list(sp.build_patch_index(net, open_dataset(tmp_path / "data"), tmp_path / "grown", 3, batch=2))
    _write(tmp_path / "data" / "b.parquet", [*range(100, 150, 10), 255], [1] * 6)
    longer = open_dataset(tmp_path / "data")
    last = list(sp.build_patch_index(net, longer, tmp_path / "grown", 3, batch=2))[-1]
    assert (last.fresh, last.done) == (6, 16)
    list(sp.build_patch_index(net, longer, tmp_path / "whole", 3, batch=2))
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "grown" / path.name).read_bytes() == path.read_bytes()
    index = sp.PatchIndex(tmp_path / "grown")
    assert index.open_dataset(str(tmp_path / "data")).fingerprint == longer.fingerprint
    assert len(index.open_dataset(tmp_path / "data")) == 16
    _write(tmp_path / "data" / "a.parquet", range(1, 101, 10), [0, 1] * 5)
    with pytest.raises(SpError, match="is not what was indexed"):
        index.open_dataset(tmp_path / "data")


def test_rows_without_an_image_and_damaged_ones_are_passed_over(tmp_path, net):
    path = _write(tmp_path / "a.parquet", [], image=[_png(1), None, _png(3)[:30], _png(4)])
    found = ImageTable(path)
    with pytest.raises(SpError, match=r"Row 1 of .* has no image"):
        found.picture(1)
    with pytest.raises(SpError, match=r"Row 2 of .*: The image cannot be read as an image"):
        found.picture(2)
    last = list(sp.build_patch_index(net, found, tmp_path / "index", 3))[-1]
    assert (last.done, last.skipped) == (4, 2)


def test_a_file_that_became_unreadable_stops_the_pass(tmp_path, net):
    path = _write(tmp_path / "a.parquet", range(8))
    found = ImageTable(path)
    path.write_bytes(b"PAR1" + bytes(300) + b"PAR1")
    with pytest.raises(OSError, match=r"a\.parquet"):
        list(sp.build_patch_index(net, found, tmp_path / "index", 3))


def test_tables_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    one, two = _write(tmp_path / "1.parquet", [1]), tmp_path / "2.parquet"
    with pytest.raises(SpError, match=r"'picture' is not a column of encoded images of 1\.parquet; it has image"):
        ImageTable(one, image="picture")
    with pytest.raises(SpError, match="has no column 'kind'; it has image"):
        ImageTable(one, label="kind")
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), two)
    with pytest.raises(SpError, match=r"2 columns of bytes \(a, b\); name one"):
        ImageTable(two)
    assert ImageTable(two, image="b").image == "b"
    with pytest.raises(SpError, match=r"2\.parquet has not the columns of 1\.parquet"):
        ImageTable(tmp_path)
    pq.write_table(pa.table({"text": ["x"]}), two)
    with pytest.raises(SpError, match="no column of encoded images"):
        ImageTable(two)
    two.write_bytes(b"PAR1 no")
    with pytest.raises(SpError, match="cannot be read as Parquet"):
        ImageTable(two)
    for labels, words in (([10**9], "labels .* must be words, or numbers below 100,000; got 1000000000"),
                          ([0.5], "got 0.5"), ([-2], "got -2")):  # fmt: skip
        with pytest.raises(SpError, match=words):
            ImageTable(_write(two, [1], labels))
    with pytest.raises(SpError, match="has no rows"):
        ImageTable(_write(two, [], image=pa.array([], pa.binary())))
    monkeypatch.setattr("sp_core.datasets.image_table.GROUP_BYTES", 10)
    with pytest.raises(SpError, match="write it with row_group_size=1000"):
        ImageTable(one)
