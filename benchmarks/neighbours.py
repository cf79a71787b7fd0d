"""Search among many vectors: exact, approximate through faiss, and faiss alone, beside reading the vectors once.

    python -m benchmarks.neighbours [--vectors 1000000] [--queries 20]

Vectors of 512 numbers in clusters, as the features of a trained network are, queries drawn like them. Each query is
asked of all in turn; cells are made once before and timed apart. The recall of an approximate answer is the share of
the exact neighbours that it has.
"""

import argparse
import statistics
import time

import faiss
import torch

from benchmarks import record
from sp_core.nearest import nearest
from sp_core.nearest.approximate import Approximate

WIDTH, K = 512, 9


def clustered(count: int, clusters: int, seed: int = 0) -> torch.Tensor:
    """Vectors ``[count, 512]`` around as many centres, a block at a time."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, WIDTH, generator=generator)
    found = torch.empty(count, WIDTH)
    for rows in found.split(65_536):
        torch.randn(rows.shape, generator=generator, out=rows)
        rows.mul_(0.5).add_(centres[torch.randint(clusters, (len(rows),), generator=generator)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=20)
    args = parser.parse_args()
    everything = clustered(args.vectors + args.queries, clusters=1000)
    base, queries = everything[: args.vectors], everything[args.vectors :]
    norms = torch.linalg.vector_norm(base, dim=1)
    began = time.perf_counter()
    cells = Approximate(base, "l2")
    making = time.perf_counter() - began
    flat = faiss.IndexFlatL2(WIDTH)
    flat.add(base.numpy())
    calls = {
        "read once": lambda one: base.sum(),
        "exact": lambda one: nearest(base, one, K, "l2", norms=norms)[1],
        "approximate": lambda one: cells.search(one, K)[1],
        "faiss flat": lambda one: torch.from_numpy(flat.search(one.numpy(), K)[1]),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    hits = 0
    for turn, one in enumerate(queries.split(1)):
        rows = {}
        for name, call in calls.items():
            began = time.perf_counter()
            rows[name] = call(one)
            if turn:  # the first warms up
                times[name].append(1000 * (time.perf_counter() - began))
        assert set(rows["exact"][0].tolist()) == set(rows["faiss flat"][0].tolist())
        hits += len(set(rows["exact"][0].tolist()) & set(rows["approximate"][0].tolist()))
    recall = hits / (K * len(queries))
    middle = {name: statistics.median(values) for name, values in times.items()}

    def line(name: str, beside: str, aim: str = "", also: str = "") -> dict[str, object]:
        pairs = sorted(a / b for a, b in zip(times[name], times[beside], strict=True))
        spread = f"{pairs[len(pairs) // 4]:.2f} to {pairs[3 * len(pairs) // 4]:.2f}, median {middle[name]:.0f} ms{also}"
        question = f"{args.vectors:,} vectors of {WIDTH} numbers, {name} search"
        return record.line(question, WORDS[beside], statistics.median(pairs), spread, aim)

    lines = [
        line("exact", "read once"),
        line("exact", "faiss flat"),
        line("approximate", "read once", "50 ms", f", recall {recall:.3f}"),
        line("approximate", "faiss flat"),
    ]
    details = {"ms a query, medians": middle, "ms a query": times, "recall": recall, "s to make the cells": making}
    setup = (
        f"{args.queries} queries one after another, {K} neighbours by Euclidean distance, 1000 clusters, "
        f"{torch.get_num_threads()} threads; {cells.probes} of {cells.cells} cells looked into"
    )
    print(middle, f"recall {recall:.3f}, cells made in {making:.0f} s", flush=True)
    print(record.write("neighbours", setup, lines, details, ["faiss-cpu"]))


WORDS = {"read once": "reading the vectors once", "faiss flat": "exact search by faiss"}


if __name__ == "__main__":
    main()
