"""Gradient ascent: what a step costs beside the bare step, and how soon a picture is there.

    python -m benchmarks.synthesis [--device cuda] [--rounds 9]

The bare step is forward to the layer and backward to the pixels of the network as it is, weights frozen, as many
pictures at once as ours: what a loop written by hand takes. Beside it stand the same passes of the copy that our steps
run, with normalisations folded, channels last and, on processors that multiply in it, in bfloat16. The bundled networks
are asked for four channels at once, as the page asks, and for one alone. All take turns, in processor time on the CPU,
so that a busy machine does not show; a ratio below 1 means that ours is faster. :mod:`benchmarks.lucent` stands beside
a peer.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core.synthesis.precision import Runner, quick_runner

Make = Callable[[torch.device], sp.Network]


def bundled(name: str) -> Make:
    return lambda device: sp.load(f"bundled:{name}", device=device)


def untrained(make: Callable[..., torch.nn.Module], **options: object) -> Make:
    return lambda device: sp.Network(make(**options).to(device), input_size=(3, 224, 224))


# What, the network, the layer (None: the page's), how many channels at once.
CASES = [
    ("textures-alexnet, 4 channels", bundled("textures-alexnet"), None, 4),
    ("textures-vgg, 4 channels", bundled("textures-vgg"), None, 4),
    ("textures-resnet, 4 channels", bundled("textures-resnet"), None, 4),
    ("textures-vgg, 1 channel", bundled("textures-vgg"), None, 1),
    ("resnet18, 1 channel", untrained(models.resnet18), "layer3", 1),
    ("googlenet, 1 channel", untrained(models.googlenet, init_weights=False, aux_logits=False), "inception4c", 1),
]


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def bare(net: sp.Network, layer: str, images: int, run: Runner, size: tuple[int, int] | None = None) -> Iterator[None]:
    """An endless row of bare steps on plain pixels of ``size`` (h, w), picture i for channel i."""
    rows = torch.arange(images)
    x = torch.rand(images, net.input_size[0], *(size or net.input_size[1:]), device=net.device)
    while True:
        x.requires_grad_()
        with torch.enable_grad():
            value = run(x, [layer])[layer][rows, rows].float().mean((1, 2)).sum()
            gradient = torch.autograd.grad(value, x)[0]
        x = (x.detach() + 0.01 * gradient.sign()).clamp(0, 1)
        yield


def ours(net: sp.Network, layer: str, images: int, **options: object) -> Iterator[None]:
    """An endless row of steps of ours, the first sixteen of every picture left out of the comparison."""
    settings = sp.AscentSettings(steps=512, redirect=0, **options)
    while True:
        for step in sp.ascend(net, [f"{layer}:{channel}" for channel in range(images)], settings):
            yield
            if step.step == 500:
                break


def in_turns(rows: dict[str, Iterator[None]], device: torch.device, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each row, a value a round, taking turns."""
    for steps_of in rows.values():
        for _ in range(3):
            next(steps_of)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, steps_of in rows.items():
            begin = clock(device)
            for _ in range(steps):
                next(steps_of)
            times[name].append((clock(device) - begin) / steps)
    return times


def spread(numerators: list[float], denominators: list[float]) -> tuple[float, str]:
    """The ratio of the medians, and the smallest and largest of a round."""
    each = [a / b for a, b in zip(numerators, denominators, strict=True)]
    ratio = statistics.median(numerators) / statistics.median(denominators)
    return ratio, f"{min(each):.2f} to {max(each):.2f}"


def beside_bare(device: torch.device, rounds: int, lines: list, details: dict) -> None:
    for name, make, given, images in CASES:
        net = make(device)
        layer = given or sp.synthesis.default_layer(net)
        quick = quick_runner(net, "auto", [layer], net.input_size[1:])
        size = min(net.input_size[1:])
        rows = {
            "bare": bare(net, layer, images, Runner(net)),
            "the same passes": bare(net, layer, images, quick),
            "ours": ours(net, layer, images, size=size),
            "pixel, no transforms": ours(net, layer, images, size=size, parametrisation="pixel", transforms=0.0),
        }
        if quick.low:
            rows["ours in float32"] = ours(net, layer, images, size=size, precision="float32")
        times = in_turns(rows, device, rounds, 2 if net.input_size[1] > 100 else 10)
        details[f"{name}, {layer}"] = {f"seconds a step, {row}": statistics.median(t) for row, t in times.items()}
        question = f"gradient ascent, {name}, {layer}"
        for row, beside, aim in (
            ("ours in float32", "bare", "1.10"),
            ("ours", "bare", "1.10"),
            ("ours", "the same passes", ""),
            ("pixel, no transforms", "the same passes", ""),
        ):
            if row not in times:
                continue
            ratio, around = spread(times[row], times[beside])
            print(f"{question}: {row} / {beside} {ratio:.2f} ({around})", flush=True)
            if row.startswith("ours"):
                what = question if row == "ours" else f"{question}, in float32"
                beside = "the bare step" if beside == "bare" else f"the same passes, {quick.precision}, alone"
                lines.append(record.line(what, beside, ratio, around, aim))


def first_picture(lines: list, details: dict) -> None:
    """Time from the question to a finished picture of 64 steps, of one channel of a middle layer."""
    found = {}
    for name in ("textures-alexnet", "textures-vgg", "textures-resnet"):
        net = sp.load(f"bundled:{name}")
        unit, begin = f"{sp.synthesis.default_layer(net)}:3", clock(net.device)
        *_, last = sp.ascend(net, unit, sp.AscentSettings(steps=64))
        found[name] = clock(net.device) - begin
        print(f"{name}, {unit}: {found[name]:.2f} s to a picture of 64 steps, {last.images.shape[2]} pixels")
    details["first picture"] = found
    times = f"{min(found.values()):.2f} to {max(found.values()):.2f} s"
    slowest = max(found.values()) / 2
    lines.append(record.line("first picture of a middle-layer channel, 64 steps", "2 s", slowest, times, "1.00"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    lines: list = []
    details: dict = {}
    if device.type == "cpu":
        torch.set_num_threads(1)
    first_picture(lines, details)
    beside_bare(device, args.rounds, lines, details)
    setup = f"{device}, medians of {args.rounds} rounds in turns, one thread, processor time"
    print(record.write("synthesis", setup, lines, details))


if __name__ == "__main__":
    main()
