"""The backprop rules beside a bare gradient and captum: time, as ratios inside one run, and two threads at once.

    python -m benchmarks.backprop            # writes benchmarks/results/backprop.json

For each torchvision network (untrained, calibrated, 224 pixels), one image, and eight for some: a bare
``autograd.grad``, ours by each rule, and captum's GuidedBackprop on a private copy, in a new random order each round.
Times are those of the one thread's processor (other work on the machine counts little). Then one network shared by
two threads, one asking captum for guided backprop and the other for the plain gradient, against ours doing the same.
How far captum's answer is from ours is in ``benchmarks/attributions.py``.
"""

import random
import statistics
import sys
import threading
import time
import warnings
from pathlib import Path

import torch
from captum.attr import GuidedBackprop, Saliency

import sp_core as sp
from benchmarks import record
from sp_core.rules import RULES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from references import classifier

warnings.filterwarnings("ignore")
NETWORKS = ["resnet18", "googlenet", "mobilenet_v2", "squeezenet1_1", "densenet121", "shufflenet_v2_x1_0"]
EIGHT = {"mobilenet_v2", "squeezenet1_1"}
ROUNDS, SIZE, CALLS = 17, 224, 50


def bare(module, images):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(module(images)[:, 3].sum(), images)[0]


def timed(call):
    start = time.thread_time()
    call()
    return time.thread_time() - start


def one(name, batch):
    """Time of each, as a ratio to the bare gradient: of the least of all rounds, and the median of paired rounds."""
    net = sp.Network(classifier(name, SIZE), name=name, input_size=(3, SIZE, SIZE))
    images = torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    clone = net.clone()
    calls = {"bare": lambda: bare(net.module, images)}
    calls |= {rule: lambda rule=rule: sp.backprop(net, images, 3, rule) for rule in RULES}
    calls["captum guided"] = lambda: GuidedBackprop(clone).attribute(images.clone().requires_grad_(), target=3)
    times = {key: [] for key in calls}
    for turn in range(ROUNDS + 1):
        for key in random.sample(list(calls), len(calls)):
            spent = timed(calls[key])
            if turn:  # the first round warms up
                times[key].append(spent)
    least = min(times["bare"])
    return {
        "bare, ms": round(1000 * least, 1),
        **{
            key: {
                "least": round(min(values) / least, 3),
                "median": round(statistics.median(a / b for a, b in zip(values, times["bare"], strict=True)), 3),
            }
            for key, values in times.items()
            if key != "bare"
        },
    }


def two_threads(guided, plain):
    """How many of the plain gradients are wrong while another thread asks for guided backprop."""
    right = plain()
    wrong, stop = [], threading.Event()

    def disturb():
        while not stop.is_set():
            guided()

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for _ in range(CALLS):
            wrong.append(not torch.allclose(plain(), right, atol=1e-6))
    finally:
        stop.set()
        other.join()
    return f"{sum(wrong)} of {CALLS} wrong"


def main():
    torch.set_num_threads(1)
    random.seed(0)
    rows = {}
    for name in NETWORKS:
        rows[name] = {f"batch {batch}": one(name, batch) for batch in ((1, 8) if name in EIGHT else (1,))}
        print(name, rows[name], file=sys.stderr, flush=True)
    net = sp.Network(classifier("squeezenet1_1", 64), input_size=(3, 64, 64))
    images = torch.rand(1, 3, 64, 64)
    shared = net.clone()
    threads = {
        "captum guided beside captum saliency, one module": two_threads(
            lambda: GuidedBackprop(shared).attribute(images.clone().requires_grad_(), target=3),
            lambda: Saliency(shared).attribute(images.clone().requires_grad_(), target=3, abs=False),
        ),
        "ours guided beside ours gradient, one network": two_threads(
            lambda: sp.backprop(net, images, 3), lambda: sp.backprop(net, images, 3, "gradient")
        ),
    }
    parts = [part for row in rows.values() for part in row.values()]
    setup = f"untrained calibrated networks, {SIZE}×{SIZE}, 1 thread, processor time, {ROUNDS} rounds in random order"
    lines = [_line(rule, [part[rule] for part in parts]) for rule in (*RULES, "captum guided")]
    print(record.write("backprop", setup, lines, {"networks": rows, "two threads": threads}, ["captum"]))


def _line(rule, found):
    least, middle = ([one[key] for one in found] for key in ("least", "median"))
    aim = "" if "captum" in rule else "1.05"
    spread = (
        f"medians of the networks {min(middle):.2f} to {max(middle):.2f}, of their least times {min(least):.2f} to "
        f"{max(least):.2f}"
    )
    ratio = round(statistics.median(middle), 3)
    return record.line(f"backprop, {rule}", "bare forward + backward", ratio, spread, aim)


if __name__ == "__main__":
    main()
