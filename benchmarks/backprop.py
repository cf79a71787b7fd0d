"""Guided backprop beside a bare gradient and captum: correctness and time, as ratios inside one run.

    python -m benchmarks.backprop            # writes benchmarks/results/backprop.json

For each torchvision network (untrained, calibrated, 224 pixels): the time of a bare ``autograd.grad``, of ours and of
captum's GuidedBackprop on the same private module (interleaved, medians), and how far captum's answer is from ours and
from the plain gradient. Then one network shared by two threads, one asking captum for guided backprop and the other for
the plain gradient, against ours doing the same.
"""

import json
import statistics
import sys
import threading
import time
import warnings
from pathlib import Path

import captum
import torch
from captum.attr import GuidedBackprop, Saliency
from torchvision import models

import sp_core as sp

warnings.filterwarnings("ignore")
NETWORKS = ["resnet18", "googlenet", "mobilenet_v2", "squeezenet1_1", "densenet121", "shufflenet_v2_x1_0"]
ROUNDS, SIZE, CALLS = 7, 224, 50


def calibrated(name):
    torch.manual_seed(0)
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    module = models.get_model(name, weights=None, **extra)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
            part.bias.data.normal_(0, 0.1)
    with torch.no_grad():
        module.train()(torch.rand(2, 3, SIZE, SIZE))
    return module.eval()


def bare(module, images):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(module(images)[:, 3].sum(), images)[0]


def timed(call):
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


def one(name):
    net = sp.Network(calibrated(name), name=name, input_size=(3, SIZE, SIZE))
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    clone = net.clone()
    calls = {
        "bare": lambda: bare(net.module, images),
        "ours": lambda: sp.backprop(net, images, 3),
        "captum": lambda: GuidedBackprop(clone).attribute(images.clone().requires_grad_(), target=3).detach(),
    }
    answers = {key: call() for key, call in calls.items()}  # warm
    times = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            times[key].append(timed(call)[0])
    median = {key: statistics.median(values) for key, values in times.items()}
    return {
        "ours / bare gradient": round(median["ours"] / median["bare"], 3),
        "captum / bare gradient": round(median["captum"] / median["bare"], 3),
        "captum's difference from ours": off(answers["captum"], answers["ours"]),
        "captum's difference from the plain gradient": off(answers["captum"], answers["bare"]),
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
    rows = {}
    for name in NETWORKS:
        rows[name] = one(name)
        print(name, rows[name], file=sys.stderr)
    net = sp.Network(calibrated("squeezenet1_1"), input_size=(3, 64, 64))
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
    answer = {
        "versions": {"torch": torch.__version__, "captum": captum.__version__},
        "setup": f"untrained calibrated networks, 1×3×{SIZE}×{SIZE}, 1 thread, medians of {ROUNDS} interleaved rounds",
        "networks": rows,
        "two threads": threads,
    }
    path = Path(__file__).parent / "results" / "backprop.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
