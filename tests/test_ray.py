"""The patch index by Ray Data: the bytes of the local engine, whoever is killed or stopped on the way."""

import itertools
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core import cli
from sp_core.commands import index as verb
from sp_core.errors import SpError
from sp_core.patches import build, on_ray


class Noise:
    """Random images, two of them damaged; the worker that first comes to image ``deadly`` is killed there."""

    name, classes = "noise", ("even", "odd")

    def __init__(self, count, marks=None, deadly=-1):
        self.count, self.marks, self.deadly = count, marks, deadly

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return f"{self.count:016x}"

    def first(self, count):
        return Noise(count)

    def batch(self, start, stop, network=None):
        numbers = range(start, min(stop, self.count))
        if self.marks is not None:
            (self.marks / f"{start}-{os.getpid()}").touch()
            mark = self.marks / "killed"
            if self.deadly in numbers and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if {5, 333} & set(numbers):
            raise SpError("damaged")
        rows = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in numbers]
        return torch.stack(rows), torch.tensor([i % 2 if i % 7 else -1 for i in numbers])


@pytest.fixture(scope="module")
def cluster():
    """Two cores, nothing else; the tests of this file share it."""
    pytest.importorskip("ray", reason='Ray is missing: pip install "ray[data]"')
    ray = on_ray.load()
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else they start only when nobody else wants to work
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
            object_store_memory=100 * 2**20,
        )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.fixture
def here(cluster, monkeypatch):
    """The worker in this process, because starting one takes seconds; it is sent, and answers, as the others."""
    pa = pytest.importorskip("pyarrow")

    def tables(ray, job, pieces, workers, wants):
        worker = on_ray.Worker([ray.put(job)])
        return (worker(pa.table({"start": [start], "stop": [stop]})) for start, stop in pieces)

    monkeypatch.setattr(on_ray, "_tables", tables)


pytestmark = pytest.mark.usefixtures("one_thread")  # as a worker has


def _net(broken=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 2))
    if broken:
        net[4].weight.data[0, 0] = torch.nan
    return sp.Network(net, "tiny", (3, 8, 8))


def _build(data, folder, **options):
    return list(sp.build_patch_index(_net(), data, folder, 4, batch=8, **options))[-1]


def _bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_stopped_between_two_parts_it_is_gone_on_with_by_either_engine(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "LEAST", 64)
    monkeypatch.setattr(on_ray, "shares", lambda cores, gpus: (1, {"num_cpus": 1}))
    steps = sp.build_patch_index(_net(), Noise(300), tmp_path / "index", 4, batch=8, engine="ray")
    assert [next(steps).done for _ in range(2)] == [64, 128]
    steps.close()
    there = sp.PatchIndex(tmp_path / "index")
    assert (there.done, there.total, there.images) == (128, 300, 127)
    assert _build(Noise(300), tmp_path / "index").fresh == 172
    _build(Noise(300), tmp_path / "whole")
    assert _bytes(tmp_path / "index") == _bytes(tmp_path / "whole")
    finished = _build(Noise(300), tmp_path / "index", engine="ray")
    assert (finished.done, finished.fresh) == (300, 0)


def test_a_killed_worker_changes_no_byte_of_a_grown_index(cluster, tmp_path, monkeypatch):
    """Begun by the local engine over the first 200 images; the rest by two workers, of whom one is killed.

    Two cores are free for them only if the test above has let go of its own.
    """
    monkeypatch.setattr(on_ray, "LEAST", 64)
    _build(Noise(200), tmp_path / "index")
    (tmp_path / "marks").mkdir()
    last = _build(Noise(500, tmp_path / "marks", deadly=420), tmp_path / "index", engine="ray")
    assert (last.done, last.fresh, last.skipped, last.saved) == (500, 300, 2, True)
    seen = {path.name for path in (tmp_path / "marks").iterdir()} - {"killed"}
    starts = [int(name.split("-")[0]) for name in seen]
    workers = {name.split("-")[1] for name in seen}
    assert (tmp_path / "marks" / "killed").exists() and len(workers) >= 2 and str(os.getpid()) not in workers
    assert min(starts) == 200, "the images of the first run were not looked at again"
    _build(Noise(500), tmp_path / "whole")
    assert _bytes(tmp_path / "index") == _bytes(tmp_path / "whole")


def test_what_is_wrong_is_said_as_by_the_local_engine(cluster, tmp_path, monkeypatch, request):
    unsendable = Noise(20)
    unsendable.lock = threading.Lock()
    with pytest.raises(SpError, match=r"cannot be sent to other processes \(cannot pickle .* object\); use the engine"):
        _build(unsendable, tmp_path / "unsent", engine="ray")
    request.getfixturevalue("here")
    monkeypatch.setattr(on_ray, "LEAST", 64)
    for engine in ("local", "ray"):
        with pytest.raises(SpError, match="Layer 4 of tiny gives nan on image 0: the weights have diverged"):
            list(sp.build_patch_index(_net(broken=True), Noise(20), tmp_path / engine, engine=engine))
        assert not (tmp_path / engine).exists()
    with pytest.raises(SpError, match=r"noise cannot be read \(.*\); run it again to go on from there"):
        _build(Noise(300, tmp_path / "no such folder"), tmp_path / "lost", engine="ray")


def test_the_verb_reads_a_bucket(here, tmp_path, capsys, monkeypatch):
    (tmp_path / "set").mkdir()
    for i in range(3):
        sp.images.to_picture(torch.rand(3, 9, 9)).save(tmp_path / "set" / f"{i}.png")
    monkeypatch.setattr(verb, "load", lambda args: _net())
    said = {}
    for engine in ("local", "ray"):
        arguments = ["--dataset", f"file://{tmp_path}/set", "--out", str(tmp_path / engine), "--engine", engine]
        assert cli.main(["index", "any", "--json", *arguments]) == 0
        said[engine] = json.loads(capsys.readouterr().out)
    assert said["ray"]["images"] == 3 and said["ray"]["layers"] == said["local"]["layers"]
    assert _bytes(tmp_path / "ray") == _bytes(tmp_path / "local")


def test_without_ray_the_line_that_installs_it_and_nothing_is_lost(tmp_path, monkeypatch):
    _build(Noise(20), tmp_path / "index")
    before = _bytes(tmp_path / "index")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpError, match=r'install it with: pip install "ray\[data\]"'):
        _build(Noise(20), tmp_path / "index", engine="ray", resume=False)
    with pytest.raises(SpError, match="`engine` must be local or ray; got 'spark'"):
        _build(Noise(20), tmp_path / "index", engine="spark", resume=False)
    assert _bytes(tmp_path / "index") == before


@pytest.mark.parametrize(("start", "stop", "batch"), [(0, 70, 8), (0, 50_000, 32), (40, 1_281_167, 4), (7, 900, 128)])
def test_parts_cover_every_image_once_and_are_cut_between_batches(start, stop, batch):
    pieces = on_ray.parts(start, stop, batch)
    assert pieces[0][0] == start and pieces[-1][1] == stop
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert all(a < b and (b % batch == 0 or b == stop) for a, b in pieces)
    assert max(b - a for a, b in pieces) <= on_ray.MOST


def test_a_part_is_what_the_local_engine_makes_of_it(tmp_path):
    """Sent as bytes and back, which keeps all of it: kept labels, skips, the random sample."""
    _build(Noise(40), tmp_path / "part", start=16, stop=40)
    header = build.identify(_net(), Noise(40), 4, None, 8)
    state = build.store.unpack(*build.store.pack(build.build_part(_net(), Noise(40), header, 16, 40)))
    build.store.write(tmp_path / "again", state)
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "part")
