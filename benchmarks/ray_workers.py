"""The patch index on one and on two Ray workers of a thread each, beside the local engine; what ImageNet would cost.

    python -m benchmarks.ray_workers [--network resnet18] [--images 768] [--rounds 2]

JPEG files of a common photo's size are read from a folder, decoding included. Workers take seconds to start, which
is nothing in a job of hours: speeds are those of the time in which all of them were at work. The three take turns.
Two workers need two cores: on a busy machine their ratio says little. What ImageNet costs is counted from the local
engine's processor time, decoding included, which a busy machine disturbs less.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

# Before torch. And workers would step back for other programs, which the local engine does not.
os.environ.update(OMP_NUM_THREADS="1", RAY_worker_niceness="0")

import torch
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core import decoding_process
from sp_core.patches import on_ray

SIZE = (500, 375)  # a common size of ImageNet's photos
IMAGENET = 1_281_167  # its training set
PART = 64


def photos(folder: Path, count: int) -> sp.datasets.source.Dataset:
    """Textures as JPEG files."""
    textures = sp.datasets.Textures(count, size=256)
    for number in range(count):
        picture = textures.picture(number).resize(SIZE).effect_spread(2)  # some grain, so that they are not too small
        picture.save(folder / f"{number:05d}.jpg", quality=90)
    return sp.datasets.open(folder)


def spent() -> float:
    """Processor time of this process and of the ones that have decoded for it, in seconds."""
    decoding_process._close_all()
    return sum(os.times()[:4])


class Stamped:
    """A data set that notes who read which images when: merged parts come in order, not when they are ready."""

    def __init__(self, data, stamps: Path) -> None:
        self.data, self.stamps = data, stamps
        self.name, self.classes, self.fingerprint = data.name, data.classes, data.fingerprint

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, start: int, stop: int, network=None):
        found = self.data.batch(start, stop, network)
        with self.stamps.open("a") as file:
            file.write(f"{os.getpid()} {time.time()} {len(found[1])}\n")
        return found


def on_ray_speed(net: sp.Network, data, workers: int) -> float:
    """Images a second while all ``workers`` were at work."""
    on_ray.shares = lambda cores, gpus: (workers, {"num_cpus": 1})
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "stamps"
        list(sp.build_patch_index(net, Stamped(data, stamps), Path(folder) / "index", engine="ray"))
        rows = [(who, float(when), int(count)) for who, when, count in map(str.split, stamps.read_text().splitlines())]
    times = [[when for who, when, _ in rows if who == one] for one in {who for who, _, _ in rows}]
    if len(times) < workers:
        raise SystemExit(f"Only {len(times)} of {workers} workers came to work: give more --images.")
    begin, end = max(map(min, times)), min(map(max, times))
    return sum(count for _, when, count in rows if begin < when <= end) / (end - begin)


def local_speed(net: sp.Network, data) -> float:
    """Images a second of processor time of the local engine, after its first images."""
    began, at = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for last in sp.build_patch_index(net, data, folder):
            if not at and last.done >= PART:
                began, at = spent(), last.done
        return (last.done - at) / (spent() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--images", type=int, default=12 * PART)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = sp.Network(getattr(models, args.network)(weights=None), args.network)
    on_ray.LEAST = on_ray.MOST = PART
    ray = on_ray.load()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as after:
        data = photos(Path(folder), args.images)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        after.callback(ray.shutdown)
        rows = []
        for _ in range(args.rounds):
            rows.append([local_speed(net, data), on_ray_speed(net, data, 1), on_ray_speed(net, data, 2)])
            print(
                "images/s: local (of processor time) {:.1f}, one worker {:.1f}, two {:.1f}".format(*rows[-1]),
                flush=True,
            )
    local, one, two = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = sorted(row[2] / row[1] for row in rows)
    days = IMAGENET / local / 86400
    lines = [
        record.line(
            f"patch index, {args.network}, two Ray workers", "one worker", *record.middle(ratios),
            "at least 1.6",
        ),
        record.line(
            f"patch index of ImageNet (1.28 M photos), {args.network}", f"{local:.1f} images/s a core",
            f"{days:.2f} core-days",
        ),
    ]  # fmt: skip
    details = {
        "images a second": {"local, of processor time": local, "one worker": one, "two workers": two},
        "rounds": rows,
    }
    setup = (
        f"{args.images} JPEG files of {SIZE[0]}×{SIZE[1]}, decoding included, a thread a worker, {args.rounds} rounds"
    )
    print(*(f"{row['question']}: {row['ratio']}" for row in lines), sep="\n")
    print(record.write("ray_workers", setup, lines, details, ["ray"]))


if __name__ == "__main__":
    main()
