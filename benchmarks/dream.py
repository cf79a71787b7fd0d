"""DeepDream on large pictures: the memory it takes, measured in a fresh process, beside the picture's own buffers.

    python -m benchmarks.dream [--all]

Each case runs one step in one octave of its own process, on an untrained ResNet-18 up to layer3. What counts is the
private memory (``RssAnon``) at its highest, above what the process had with the network loaded and the picture not yet
made; a full-size picture is 4096×3072. ``--all`` adds five octaves of two steps on the large one (many minutes).
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

import sp_core as sp
from benchmarks import record

LIMIT_GB = 4.0
SIZES = ((1024, 768), (4096, 3072))


def private_bytes() -> int:
    """The private memory of this process now."""
    text = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(text.split("RssAnon:")[1].split()[0])


class Peak:
    """The highest private memory while it is open, looked at every few milliseconds."""

    def __enter__(self) -> "Peak":
        self.first = self.highest = private_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.highest = max(self.highest, private_bytes())

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def one(width: int, height: int, octaves: int, steps: int) -> dict:
    """One case, in this process."""
    torch.manual_seed(0)
    net = sp.load("torchvision:resnet18@none")
    list(sp.dream(net, torch.rand(3, 256, 256), sp.DreamSettings(target="layer3", octaves=1, steps=1)))  # warm
    settings = sp.DreamSettings(target="layer3", octaves=octaves, steps=steps, max_pixels=16_000_000)
    begin = time.perf_counter()
    with Peak() as peak:
        for last in sp.dream(net, torch.rand(3, height, width), settings):
            print(f"step {last.step} of {last.steps}", file=sys.stderr)
    seconds = time.perf_counter() - begin
    assert tuple(last.image.shape[1:]) == (height, width), "the picture was made smaller"
    return {
        "bytes above the network": peak.highest - peak.first,
        "bytes in all": peak.highest,
        "seconds a step": seconds / last.steps,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="also five octaves on the large picture")
    parser.add_argument("--one", nargs=4, type=int, metavar=("W", "H", "OCTAVES", "STEPS"), help="one case, as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*args.one)))
        return
    cases = [(*size, 1, 1) for size in SIZES] + ([(*SIZES[-1], 5, 2)] if args.all else [])
    lines, details, found = [], {}, {}
    for case in cases:
        name = f"{case[0]}×{case[1]}, {case[2]} octaves of {case[3]} steps"
        command = [sys.executable, "-m", "benchmarks.dream", "--one", *map(str, case)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=record.ROOT)
        found[case] = details[name] = json.loads(done.stdout)
        picture = 4 * 3 * case[0] * case[1]
        print(f"{name}: {found[case]['bytes in all'] / 1e9:.2f} GB, {found[case]['seconds a step']:.1f} s a step")
        details[name]["in pictures of its own size"] = found[case]["bytes above the network"] / picture
    highest = max(row["bytes in all"] for row in found.values()) / 1e9
    lines.append(
        record.line(
            "DeepDream, 4096×3072", f"{LIMIT_GB:g} GB of memory", highest / LIMIT_GB, f"{highest:.2f} GB", "1.00"
        )
    )
    setup = "untrained ResNet-18 up to layer3 on the CPU, tiles of 512 pixels, each case in a fresh process, RssAnon"
    print(record.write("dream", setup, lines, details))


if __name__ == "__main__":
    main()
