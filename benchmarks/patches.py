"""What an index costs beside the bare forward pass over the same decoded batches.

``python -m benchmarks.patches`` prints one line a network. Processor time of one thread, median of the runs, so that a
busy machine disturbs little. The first batches cost most, because every image is among the best so far: the ratio falls
with the number of images. Aim: at most 1.25 times the bare forward pass.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import sp_core as sp
from benchmarks import record
from sp_core.patches import build

CASES = (
    ("torchvision:mobilenet_v2", 224),
    ("torchvision:squeezenet1_0", 224),
    ("torchvision:resnet18", 224),
    ("bundled", 64),
)


class Decoded:
    """Images that are in memory already: what is measured is not their decoding."""

    name, classes, fingerprint = "decoded", ("a", "b"), "0" * 16

    def __init__(self, count: int, side: int) -> None:
        self.images = torch.rand(count, 3, side, side)
        self.labels = torch.arange(count) % 2

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, start: int, stop: int, network=None):
        return self.images[start:stop], self.labels[start:stop]


def network(name: str, side: int) -> sp.Network:
    if name == "bundled":
        return sp.load("bundled:textures-alexnet", device="cpu")
    import torchvision

    torch.manual_seed(0)
    return sp.Network(getattr(torchvision.models, name.split(":")[1])(), name=name, input_size=(3, side, side))


def bare(net: sp.Network, data: Decoded, batch: int) -> float:
    began = time.process_time()
    for first in range(0, len(data), batch):
        sp.predict(net, data.batch(first, first + batch)[0])
    return time.process_time() - began


def indexed(net: sp.Network, data: Decoded) -> tuple[float, int]:
    """Seconds of the pass alone (what is planned once, such as receptive fields, is cached) and the bytes it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        for _ in sp.build_patch_index(net, data, folder):
            pass
        spent = time.process_time() - began
        return spent, sum(path.stat().st_size for path in Path(folder).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512, help="of 224 × 224; eight times as many of 64 × 64")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines, details = [], {}
    for name, side in CASES:
        if args.only not in name:
            continue
        net, data = network(name, side), Decoded(args.images * (8 if side < 100 else 1), side)
        batch = build.identify(net, data, 9, None, None)["settings"]["batch"]
        bare(net, data, batch)
        pairs = [(bare(net, data, batch), *indexed(net, data)) for _ in range(args.runs)]
        ratios = sorted(index / forward for forward, index, _ in pairs)
        ratio = statistics.median(ratios)
        forward = statistics.median(pair[0] for pair in pairs) / len(data) * 1000
        print(
            f"{name:28} {forward:6.1f} ms/image bare, index / bare {ratio:5.3f}, {pairs[0][2] / 1e6:5.2f} MB",
            flush=True,
        )
        details[name] = {"images": len(data), "ms an image, bare": forward, "ratios": ratios, "bytes": pairs[0][2]}
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        lines.append(record.line(f"patch index, {name}", "the bare forward passes", ratio, spread, "1.25"))
    setup = f"processor time of one thread, medians of {args.runs} runs, images decoded before"
    print(record.write("patches", setup, lines, details))


if __name__ == "__main__":
    main()
