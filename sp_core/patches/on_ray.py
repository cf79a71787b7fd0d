"""The index of patches by many processes and machines: ``build_patch_index(…, engine="ray")``.

Ray Data (https://docs.ray.io, ``pip install "ray[data]"``) hands parts of the data set to workers. A worker makes the
state of its part with the local engine, and the parts are merged here in their order. Because merging is associative
and the parts are cut where the local engine cuts its batches, the folder ends with **the bytes of the local engine**,
whatever the number of workers and whichever of them were lost on the way: a part of a lost worker is given to another.
(On one kind of processor, that is: two kinds may differ in the last bit of a convolution, and so do CPU and GPU.)

**Where.** A cluster that this process is connected to, or that runs on this machine or at ``RAY_ADDRESS``; else one is
started on this machine and ended afterwards. Every free core becomes a worker, with one thread; where there are GPUs,
each gets up to :data:`SHARING` workers, because one core cannot decode what a GPU can look at. The GPU rule has been
tested for what it asks of Ray, not measured on GPUs.

**What the workers need.** ``sp_core`` in the folder that the program is started in (``ray job submit --working-dir .``
brings it), and the images: a bucket, or a path that is the same on every machine.

**Killed.** The folder holds everything up to the last merged part that was saved: built again, by either engine, it
goes on there, and a data set that has grown costs its new images only. What workers had in hand is done again. With
``batch`` not given, an index begun on GPUs has batches of 128; it is gone on with in the same batches anywhere.

**ImageNet**, 1.28 million photographs, costs 1.28 M / (images per second). One core made 28 (Intel Xeon) and 38 (AMD
EPYC) images of 500 × 375 pixels a second of processor time with ResNet-18, decoding included: 0.53 and 0.39 core-days.
Two workers on two cores were 1.77 to 1.80 times as fast as one (``python -m benchmarks.ray_workers``). The local engine
on an H200 with 16 cores made 585 to 617 a second, 0.87 to 0.92 of what decoding and the bare forward passes alone came
to: 36 minutes (``python -m benchmarks.patches_gpu``). It is the decoding that takes the time.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import math
import os
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sp_core.datasets.passes import GPU_BATCH
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.patches import build, store

LEAST, MOST, PARTS = 256, 4096, 32  # images a part, and about how many parts a small data set is cut into
SHARING = 4  # workers a GPU, at most: each keeps the network and a batch there
WAITING = 2  # parts a worker is given at once, so that it never waits for the next


def load() -> Any:
    """The package ``ray`` with Ray Data; raises SpError with the line that installs it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # and print how an object that is held here might be lost
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray Data sets options of its own that it deprecates
            import ray
            import ray.data

            ray.data.DataContext.get_current()
    except ImportError as error:
        raise SpError('The engine ray needs Ray Data; install it with: pip install "ray[data]"') from error
    return ray


def parts(start: int, stop: int, batch: int) -> list[tuple[int, int]]:
    """Images ``start … stop - 1`` in pieces ``(first, one past the last)``, cut where the local engine cuts batches.

    >>> parts(0, 1000, 32), parts(520, 600, 32)
    ([(0, 256), (256, 512), (512, 768), (768, 1000)], [(520, 600)])
    """
    size = math.ceil(min(max(stop // PARTS, LEAST), MOST) / batch) * batch
    edges = [start, *range((start // size + 1) * size, stop, size), stop]
    return list(itertools.pairwise(edges))


def shares(cores: float, gpus: float) -> tuple[int, dict[str, float]]:
    """How many workers a cluster has room for, and what each asks of Ray.

    >>> shares(8, 0), shares(32, 4), shares(2, 4)
    ((8, {'num_cpus': 1}), (16, {'num_cpus': 1, 'num_gpus': 0.25}), (2, {'num_cpus': 1, 'num_gpus': 1.0}))
    """
    if gpus < 1:
        return max(int(cores), 1), {"num_cpus": 1}
    each = min(max(int(cores // gpus), 1), SHARING)
    return max(min(int(gpus) * each, int(cores)), 1), {"num_cpus": 1, "num_gpus": 1 / each}


class Worker:
    """What runs in each process: a network, and parts of the data set one after another."""

    def __init__(self, job: Any) -> None:
        import ray

        self.net, self.dataset, self.header = ray.get(job[0])
        if ray.get_gpu_ids() and torch.cuda.is_available():
            self.net.module.to("cuda")  # this process's own

    def __call__(self, rows: Any) -> Any:
        """A table of one row: the packed state of the part that ``rows`` names, or why there is none."""
        import pyarrow as pa

        start, stop = (rows[name][0].as_py() for name in ("start", "stop"))
        text, arrays, error = "", b"", ""
        try:
            text, arrays = store.pack(build.build_part(self.net, self.dataset, self.header, start, stop))
        except SpError as reason:
            error = str(reason)
        except OSError as reason:
            error = f"{self.dataset.name} cannot be read ({reason}); run it again to go on from there."
        columns = {"text": [text], "arrays": pa.array([arrays], pa.large_binary()), "error": [error]}
        return pa.table(columns)


def run(
    ray: Any, batch: int | None, net: Network, dataset: Any, folder: Path, state: store.State, stop: int
) -> Iterator[build.Progress]:
    """Go on from ``state`` up to image ``stop``; a record a part. ``batch`` is what the person chose, if anything.

    Raises:
        SpError: the network cannot be sent to other processes, or what the local engine raises.
    """
    began, first = time.monotonic(), state.done
    saved_at, cost = -math.inf, 0.0
    saved = state.done > state.start

    def progress() -> build.Progress:
        spent = time.monotonic() - began
        return build.Progress(state.done, stop, spent, state.done - first, saved, state.skipped_count)

    if saved and state.done >= stop:
        yield progress()
        return
    with _cluster(ray):
        there = ray.cluster_resources()
        workers, wants = shares(there.get("CPU", 1), there.get("GPU", 0))
        settings = state.header["settings"]
        if not saved and batch is None and "num_gpus" in wants:
            settings["batch"] = GPU_BATCH
        pieces = parts(state.done, stop, settings["batch"])
        job = (_on_cpu(net), dataset, state.header)
        tables = _tables(ray, job, pieces, min(workers, len(pieces)), wants)
        try:
            for row in (row for table in tables for row in table.to_pylist()):
                if row["error"]:
                    raise SpError(row["error"])
                state.merge(store.unpack(row["text"], row["arrays"]))
                now = time.monotonic()
                saved = state.done >= stop or now - saved_at > max(build.SAVE_SECONDS, build.SAVE_SHARE * cost)
                if saved:
                    build.save(folder, state)
                    saved_at = time.monotonic()
                    cost = saved_at - now
                yield progress()
        finally:
            tables.close()  # the workers go
            if state.done > first and not saved:  # stopped, or a part failed: what is merged is not lost
                build.save(folder, state)


def _tables(
    ray: Any, job: Any, pieces: list[tuple[int, int]], workers: int, wants: dict[str, float]
) -> Generator[Any, None, None]:
    """The tables of :class:`Worker`, in the order of ``pieces``."""
    try:
        sent = ray.put(job)  # held until the end: a worker that is started anew asks for it again
    except Exception as error:  # pickle raises what it likes, and Ray makes pages of it
        reason = str(error.__cause__ or error).split("\n")[0]
        raise SpError(
            f"{job[0].name} or its images cannot be sent to other processes ({reason}); use the engine local."
        ) from error
    rows = [{"start": start, "stop": stop} for start, stop in pieces]
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=WAITING)
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker, batch_size=1, batch_format="pyarrow", compute=pool, fn_constructor_args=([sent],), **wants
    )
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _on_cpu(net: Network) -> Network:
    if net.device.type == "cpu":
        return net
    return replace(net, module=copy.deepcopy(net.module).cpu())  # not of a clone, whose weights are those of ``net``


@contextlib.contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine; leave everything as it was found."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
