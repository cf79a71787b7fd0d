"""How fast textures are drawn, beside the cheapest other source of pictures: decoding the same ones from JPEG.

    python -m benchmarks.textures [--device cuda] [--threads 2]

Prints images a second and the ratio, and writes benchmarks/results/textures.json. Each figure is the best of five runs,
because the machine's other work can only make a run slower.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from benchmarks import record
from sp_core.datasets.textures import VERSION, Textures, render

SIZES = {64: 2_048, 128: 512}  # pixels -> images in one run


def best_rate(work: Callable[[], object], images: int, device: str, repeats: int = 5) -> float:
    """Images a second of the fastest of ``repeats`` runs, after one that warms up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(images / (time.perf_counter() - start))
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines, sizes = [], {}
    for size, count in SIZES.items():
        indices = torch.arange(count)
        drawn = best_rate(lambda i=indices, s=size: render(i, seed=0, size=s, device=args.device), count, args.device)
        files = []
        for index in range(256):
            file = io.BytesIO()
            Textures(seed=0).picture(index, size=size).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
        decoded = best_rate(lambda f=files: [np.asarray(Image.open(io.BytesIO(data))) for data in f], len(files), "cpu")
        sizes[str(size)] = {
            "images_per_second": round(drawn),
            "jpeg_images_per_second": round(decoded),
            "ratio": round(drawn / decoded, 3),
        }
        print(f"{size} × {size}: {drawn:,.0f} images/s drawn, {decoded:,.0f} from JPEG: ratio {drawn / decoded:.2f}")
        lines.append(record.line(f"drawing a {size}×{size} texture", "decoding it from JPEG", decoded / drawn))
    setup = f"texture version {VERSION}, {args.device}, {args.threads} threads, the fastest of 5 runs"
    print(record.write("textures", setup, lines, sizes))


if __name__ == "__main__":
    main()
