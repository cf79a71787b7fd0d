"""Images a second that the patch index looks at on a GPU, decoding included, beside the bare loop.

``python -m benchmarks.patches_gpu FOLDER`` takes the photographs of a folder again and again. The bare loop reads them
by the same threads and does nothing but the forward passes, in the same batches. Both run in turn, in seconds of the
clock: on a GPU it is the decoding that takes the time, and the question is what the index takes from it. Aim: at least
0.85 of the bare loop. The passes over images that are decoded already show the index without that excuse.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import sp_core as sp
from benchmarks import record
from benchmarks.patches import Decoded, network
from sp_core.datasets.folder import Folder
from sp_core.datasets.passes import GPU_BATCH, blocks

CASES = ("resnet18", "mobilenet_v2", "alexnet")


class Again:
    """The pictures of a folder, over and over, each decoded anew."""

    def __init__(self, folder: Folder, count: int) -> None:
        self.folder, self.count = folder, count
        self.name, self.classes, self.fingerprint = folder.name, folder.classes, "again"

    def __len__(self) -> int:
        return self.count

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        found = [self.folder.batch(i % len(self.folder), i % len(self.folder) + 1, network) for i in range(start, stop)]
        return torch.cat([pixels for pixels, _ in found]), torch.cat([labels for _, labels in found])


def bare(net: sp.Network, data: Any) -> None:
    with torch.no_grad():
        for block in blocks(net, data, 0, len(data), GPU_BATCH):
            for pixels in block.pixels.split(GPU_BATCH):
                net.module(net.normalise(net.check_images(pixels)))


def index(net: sp.Network, data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for _ in sp.build_patch_index(net, data, folder, batch=GPU_BATCH):
            pass


def seconds(work: Callable[[sp.Network, Any], None], net: sp.Network, data: Any) -> float:
    began = time.perf_counter()
    work(net, data)
    if net.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="of photographs")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.folder is None or (args.device == "cuda" and not torch.cuda.is_available()):
        print("needs a folder of photographs and a GPU; nothing was measured")
        return
    lines, details = [], {}
    decoded = Decoded(512, 224)
    for name in CASES:
        net = network(f"torchvision:{name}", 224)
        net.module.to(args.device)
        for what, data in (("decoding included", Again(Folder(args.folder), args.images)), ("decoded before", decoded)):
            for work in (bare, index):
                work(net, Again(data.folder, 256) if isinstance(data, Again) else data)  # to warm up
            rounds = [(seconds(bare, net, data), seconds(index, net, data)) for _ in range(args.runs)]
            speeds = [len(data) / statistics.median(some) for some in zip(*rounds, strict=True)]
            ratios = sorted(plain / ours for plain, ours in rounds)
            ratio, spread = record.middle(ratios)
            details[f"{name}, {what}"] = {"images": len(data), "a second, bare and index": speeds, "ratios": ratios}
            aim = "at least 0.85" if what == "decoding included" else ""
            print(
                f"{name:14} {what:18} bare {speeds[0]:7.0f}, index {speeds[1]:7.0f} a second: {ratio:.3f} ({spread})",
                flush=True,
            )
            also = f"{spread}; {speeds[1]:.0f} images a second"
            lines.append(
                record.line(f"patch index on a GPU, {name}, {what}: images a second", "the bare loop", ratio, also, aim)
            )
    setup = (
        f"{args.images} photographs of about 500 × 375 pixels, decoded by {torch.get_num_threads()} threads, or 512 in "
        f"memory; batches of {GPU_BATCH}, all layers; medians of {args.runs} runs, in turn"
    )
    print(record.write("patches_gpu", setup, lines, details))


if __name__ == "__main__":
    main()
