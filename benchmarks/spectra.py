"""Singular values of all layers, beside weightwatcher's ``analyze()`` and a float64 SVD.

    python -m benchmarks.spectra [--rounds 3]

weightwatcher reads a convolution as one matrix a kernel position, ours by default as the flat one; so ours is measured
at its default, and at the same matrices (``"positions"``). ResNet-18 and VGG-11 are untrained. All take turns, in
processor time.
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import statistics
import time
import warnings

import torch
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core.weights import weights

AIMS = {"resnet18": "5.00", "vgg11": "2.50"}


def timed(function) -> tuple[float, object]:
    begin = time.process_time()
    answer = function()
    return time.process_time() - begin, answer


def exact(net: sp.Network) -> dict[str, torch.Tensor]:
    """One SVD in float64 a flat matrix."""
    return {row.name: torch.linalg.svdvals(row.matrix.double()) for row in weights(net)}


def largest_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference relative to the largest singular value of the same matrix."""
    return max(float((found[name] - values).abs().max() / values[0]) for name, values in expected.items())


def watched(module: torch.nn.Module):
    """weightwatcher's analysis of all layers: its spectra and the power laws it fits to them."""
    import weightwatcher

    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return weightwatcher.WeightWatcher(model=module).analyze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    peer = importlib.util.find_spec("weightwatcher") is not None
    if not peer:
        print("weightwatcher is not installed; `pip install weightwatcher` adds it")
    lines, details, worst = [], {}, 0.0
    for name, aim in AIMS.items():
        torch.manual_seed(0)
        module = getattr(models, name)().eval()
        net = sp.Network(module, input_size=(3, 224, 224))
        rounds = args.rounds if name == "resnet18" else 1
        times: dict[str, list[float]] = {"positions": [], "flat": [], "svdvals": [], "weightwatcher": []}
        for turn in range(rounds):
            times["positions"].append(timed(lambda net=net: sp.singular_values(net, "positions"))[0])
            seconds, found = timed(lambda net=net: sp.singular_values(net))
            times["flat"].append(seconds)
            if peer:
                times["weightwatcher"].append(timed(lambda module=module: watched(module))[0])
            if turn == 0 and name == "resnet18":  # VGG-11's takes minutes, and its largest matrix is of the same kind
                seconds, expected = timed(lambda net=net: exact(net))
                times["svdvals"].append(seconds)
                worst = max(worst, largest_error(found, expected))
        details[name] = {f"seconds, {what}": statistics.median(row) for what, row in times.items() if row}
        for which, its_aim in (("flat", aim), ("positions", "")):
            question = f"singular values of all layers, {name}, {which}"
            if not peer:
                lines.append(record.line(question, "weightwatcher analyze()", "not installed", "", its_aim))
                continue
            each = [a / b for a, b in zip(times["weightwatcher"], times[which], strict=True)]
            ratio, around = statistics.median(each), f"{min(each):.1f} to {max(each):.1f}"
            lines.append(record.line(question, "weightwatcher analyze() (more is better)", ratio, around, its_aim))
            print(f"{name}, {which}: {ratio:.1f} times as fast as weightwatcher ({around})", flush=True)
        print(f"{name}: {details[name]}", flush=True)
    print(f"largest error, relative to the largest value: {worst:.1e}")
    lines.append(
        record.line(
            "largest error of a singular value, ResNet-18", "float64 svdvals", f"{worst:.0e}", "", "below 2e-05"
        )
    )
    setup = f"cpu, {torch.get_num_threads()} threads, processor time of all of them, untrained networks, in turns"
    print(record.write("spectra", setup, lines, details, ("weightwatcher",) if peer else ()))


if __name__ == "__main__":
    main()
