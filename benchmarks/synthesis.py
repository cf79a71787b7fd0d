"""Gradient ascent: what a step costs beside the bare step (forward, backward to the pixels, weights frozen).

    python -m benchmarks.synthesis [--device cuda] [--images 16]

Two bare steps are measured: through the whole network, and stopped at the layer as ours is. The settings are
interleaved and the medians of many short runs compared, in processor time on the CPU, so that a busy machine does not
show. A ratio below 1 means that ours is faster.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core.capture import capture


def small() -> nn.Module:
    """A network for 64-pixel textures."""

    def block(i, o, stride):
        return nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()

    return nn.Sequential(
        *block(3, 32, 1), *block(32, 64, 2), *block(64, 128, 2), *block(128, 128, 1), *block(128, 256, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 20),
    )  # fmt: skip


CASES = [
    ("small, 64 px", small, "9", (3, 64, 64)),
    ("resnet18, 224 px", models.resnet18, "layer3", (3, 224, 224)),
    ("googlenet, 224 px", lambda: models.googlenet(init_weights=False, aux_logits=False), "inception4c", (3, 224, 224)),
]


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def bare(net: sp.Network, layer: str | None, images: int):
    """An endless row of bare steps on plain pixels."""
    clone = net.clone()
    x = torch.rand(images, *net.input_size, device=net.device)
    while True:
        x.requires_grad_()
        with torch.enable_grad():
            if layer is None:
                value = clone(net.normalise(x))[:, 0].sum()
            else:
                value = capture(clone, net.normalise(x), [layer])[layer][:, 0].mean((1, 2)).sum()
            gradient = torch.autograd.grad(value, x)[0]
        x = (x.detach() + 0.01 * gradient.sign()).clamp(0, 1)
        yield


def ours(net: sp.Network, layer: str, images: int, parametrisation: str, transforms: float):
    settings = sp.AscentSettings(
        steps=512, size=min(net.input_size[1:]), copies=images, parametrisation=parametrisation, transforms=transforms
    )
    while True:
        for step in sp.ascend(net, f"{layer}:0", settings):
            yield
            if step.step == 500:
                break


def per_step(rows: dict, device: torch.device, rounds: int, steps: int) -> dict[str, float]:
    """Median time of a step in seconds, of each row, taking turns."""
    for steps_of in rows.values():
        for _ in range(18):  # past the redirected steps and every warm-up
            next(steps_of)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, steps_of in rows.items():
            begin = clock(device)
            for _ in range(steps):
                next(steps_of)
            times[name].append((clock(device) - begin) / steps)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {device}, batch of {args.images}\n")
    lines, details = [], {}
    print("| network | ms, bare | ours / bare | pixel, no transforms | ours / bare stopped at the layer |")
    print("|---|---|---|---|---|")
    for name, make, layer, size in CASES:
        net = sp.Network(make().to(device), input_size=size)
        rows = {
            "whole": bare(net, None, args.images),
            "stopped": bare(net, layer, args.images),
            "ours": ours(net, layer, args.images, "fourier", 1.0),
            "plain": ours(net, layer, args.images, "pixel", 0.0),
        }
        found = per_step(rows, device, args.rounds, 4 if size[1] > 100 else 10)
        print(
            f"| {name}, {layer} | {1000 * found['whole']:.1f} | {found['ours'] / found['whole']:.2f} "
            f"| {found['plain'] / found['whole']:.2f} | {found['ours'] / found['stopped']:.2f} |",
            flush=True,
        )
        details[f"{name}, {layer}"] = {f"seconds a step, {row}": seconds for row, seconds in found.items()}
        ratio = found["ours"] / found["stopped"]
        lines.append(
            record.line(f"gradient ascent, {name}, {layer}", "the bare step, stopped there", ratio, aim="1.10")
        )
    setup = f"{device}, batch of {args.images}, medians of {args.rounds} interleaved runs"
    print(record.write("synthesis", setup, lines, details))


if __name__ == "__main__":
    main()
