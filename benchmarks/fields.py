"""Receptive fields: every layer of every network beside the measured support of its Jacobian, and what they cost.

    python -m benchmarks.fields                       # the cost, and some networks proven again
    python -m benchmarks.fields --all --state F       # all networks; goes on where it was stopped

Proven are all of torchvision's convolutional classifiers and all architectures of the zoo, strict and local: the box
of every unit of every channel of every layer on the network's own image, and size, stride and start of every layer on
an image so large that nothing is clipped. ``tests/reach.py`` measures. The cost is that of all layers of ResNet-152
beside one forward pass of it, in turns, in processor time of one thread.
"""

import argparse
import collections
import gc
import json
import random
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core.errors import SpError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reach import compared

TRANSFORMERS = ("vit", "swin", "maxvit")
ROUNDS = 7


def torchvision_names() -> list[str]:
    """Its convolutional classifiers."""
    return [name for name in models.list_models(module=models) if not name.startswith(TRANSFORMERS)]


def network(name: str) -> sp.Network:
    """``torchvision:NAME`` or ``zoo:NAME``, without weights: fields do not depend on them."""
    kind, _, short = name.partition(":")
    size = (3, 299, 299) if short == "inception_v3" else (3, 224, 224)
    make, plain = sp.zoo.create, {}
    if kind == "torchvision":
        make = partial(models.get_model, weights=None)
        plain = {"init_weights": False} if short.startswith(("googlenet", "inception", "vgg")) else {}
    else:
        size = sp.zoo.entry(short).input_size
    try:
        with torch.device("meta"):
            module = make(short, **plain)
        if any(buffer.ndim and not buffer.is_floating_point() for buffer in module.buffers()):
            module = make(short, **plain)  # indices count, weights do not
    except Exception:  # noqa: BLE001 - it looks at values while it is made
        module = make(short, **plain)
    return sp.Network(module, name=name, input_size=size)


def proven(name: str) -> dict:
    """One network's row: what is said of its layers, and whether it is what was measured."""
    net = network(name)
    try:
        fields = sp.receptive_fields(net)
    except SpError as error:
        return {"said": str(error)}
    row: dict = {"status": dict(collections.Counter(field.status for field in fields.values()))}
    row["notes"] = sorted({field.note for field in fields.values() if field.note})
    row["local"] = compared(net, "local")
    if row["local"]["gates"]:
        row["strict"] = compared(net, "strict")
    return row


def faults(row: dict) -> int:
    """Layers that are not what was measured."""
    return sum(
        len(row[gates][what]) for gates in ("local", "strict") if gates in row for what in ("wrong boxes", "wrong laws")
    )


def cost() -> dict:
    """All layers of ResNet-152, from the bare network, beside one forward pass."""
    module = models.resnet152(weights=None).eval()
    images = torch.rand(1, 3, 224, 224)
    times: dict[str, list[float]] = {"forward": [], "fields": []}
    gc.collect()
    gc.freeze()  # as the app does after its imports: what lives for ever is not looked through again

    def forward() -> None:
        with torch.no_grad():
            module(images)

    for turn in range(ROUNDS + 1):
        net = sp.Network(module, input_size=(3, 224, 224))  # a new one: what is found is kept with a network
        calls = {"forward": forward, "fields": lambda net=net: sp.receptive_fields(net)}
        for key in random.sample(list(calls), 2):
            start = time.thread_time()
            calls[key]()
            if turn:  # the first round warms up
                times[key].append(time.thread_time() - start)
    ratios = sorted(a / b for a, b in zip(times["fields"], times["forward"], strict=True))
    return {"layers": len(net.layers), "ratios": [round(ratio, 3) for ratio in ratios]}


def lines(rows: dict, spent: dict) -> list[dict]:
    """The lines of the README's table."""
    found = []
    for kind, what in (("torchvision", "torchvision's convolutional classifiers"), ("zoo", "architectures of the zoo")):
        these = [row for name, row in rows.items() if name.startswith(kind)]
        measured = [row["local"] for row in these if "local" in row]
        wrong = sum(map(faults, these))
        layers, units = sum(one["layers"] for one in measured), sum(one["units"] for one in measured)
        found.append(
            record.line(
                f"receptive fields of {len(measured)} {what}: {layers:,} layers, {units / 1e6:,.0f} million units",
                "the measured support of the derivative, strict and local",
                "all equal" if not wrong else f"{wrong} layers differ",
                "",
                "all equal",
            )
        )
    if spent:
        ratios = spent["ratios"]
        found.append(
            record.line(
                f"receptive fields, all {spent['layers']} layers of ResNet-152",
                "one forward pass, 224×224",
                round(statistics.median(ratios), 2),
                f"{ratios[0]:.2f}–{ratios[-1]:.2f}",
                "2",
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every network")
    parser.add_argument("--state", type=Path, help="a file of what is proven already")
    parser.add_argument("--names", nargs="*", default=(), help="these only, such as zoo:wrn-16-1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    random.seed(0)
    before = record.RESULTS / "fields.json"
    kept = json.loads(before.read_text("utf-8"))["details"] if before.exists() else {"networks": {}}
    every = [f"torchvision:{name}" for name in torchvision_names()] + [f"zoo:{name}" for name in sp.zoo.names()]
    rows = {name: kept["networks"][name] for name in every if name in kept["networks"]}
    done = {}
    if args.state and args.state.exists():
        done = dict(json.loads(line) for line in args.state.read_text("utf-8").splitlines())
    todo = args.names or (every if args.all else random.sample(every, 8))
    for name in todo:
        if name not in done:
            start = time.thread_time()
            done[name] = proven(name)
            if args.state:
                with args.state.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, done[name]]) + "\n")
            print(
                f"{name}: {faults(done[name])} faults, {time.thread_time() - start:.1f} s", file=sys.stderr, flush=True
            )
    rows |= done
    spent = kept.get("resnet152", {}) if args.names else cost()
    setup = "no weights, own input sizes, every unit of every layer; cost in processor time of 1 thread, in turns"
    ordered = {name: rows[name] for name in every if name in rows}
    print(
        record.write("fields", setup, lines(ordered, spent), {"networks": ordered, "resnet152": spent}, ["torchvision"])
    )


if __name__ == "__main__":
    main()
