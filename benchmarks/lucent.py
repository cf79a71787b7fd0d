"""Channels a minute beside torch-lucent, at equal steps, and what the processor would allow at most.

    python -m benchmarks.lucent [--rounds 5]

On an untrained ResNet-18. torch-lucent runs at its defaults: one channel a call, the whole network forward on 224 × 224
pixels, gradients for the weights too. Ours draws sixteen channels at once at the size that suits the layer: 56, 128 and
224 pixels. Third in turn stand the bare passes of those sixteen pictures, forward to the layer and backward to the
pixels, by the copy that our steps run and with nothing else done: with these kernels, the most that can be had.

At 224 pixels ours multiplies 1.6 times less than torch-lucent, so how much faster it is depends on how the processor
multiplies. So each kind of processor has a file of its own; a run replaces that of the kind it ran on.
"""

import argparse
import copy
import importlib.util
import warnings

import torch
from torchvision import models

import sp_core as sp
from benchmarks import record
from benchmarks.synthesis import bare, clock, ours, spread
from sp_core.synthesis import plan
from sp_core.synthesis.precision import quick_runner

SIXTEEN = 16
STEPS = 4  # of each, a turn
LAYERS = ("layer1", "layer2", "layer3")
CPU = torch.device("cpu")
PACKAGES = ("torch-lucent", "kornia")


def processor() -> tuple[str, str]:
    """Of a kind of processor the name in the file's, and what the table says of it."""
    for name, says in (("amx_tile", "matrix units (AMX)"), ("avx512_bf16", "AVX512-BF16")):
        ask = getattr(torch.cpu, f"_is_{name}_supported", None)
        if ask is not None and ask():
            return name.split("_tile")[0], says
    name = torch.backends.cpu.get_cpu_capability()
    return name.lower(), f"{name}, float32"


def lucent(module: torch.nn.Module, layer: str, steps: int) -> float:
    """Seconds of processor time of a step of torch-lucent at its defaults, for one channel."""
    from lucent.optvis import render

    fresh = copy.deepcopy(module)  # it leaves its hooks on the network: a fresh one, outside the measured time
    begin = clock(CPU)
    render.render_vis(fresh, f"{layer}:0", thresholds=(steps,), progress=False, show_image=False)
    return (clock(CPU) - begin) / steps


def in_turns(module: torch.nn.Module, layer: str, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds a channel and step of torch-lucent, ours and the bare passes, a value a round; our picture's side."""
    net = sp.Network(module, input_size=(3, 224, 224))
    size = plan.make_plan(net, [f"{layer}:0"], sp.AscentSettings()).size
    quick = quick_runner(net, "auto", [layer], size)
    rows = {"ours": ours(net, layer, SIXTEEN), "the bare passes": bare(net, layer, SIXTEEN, quick, size)}
    for steps_of in rows.values():
        next(steps_of)
    times: dict[str, list[float]] = {name: [] for name in ("torch-lucent", *rows)}
    for _ in range(rounds):
        times["torch-lucent"].append(lucent(module, layer, STEPS))
        for name, steps_of in rows.items():
            begin = clock(CPU)
            for _ in range(STEPS):
                next(steps_of)
            times[name].append((clock(CPU) - begin) / SIXTEEN / STEPS)
    return times, size[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if importlib.util.find_spec("lucent") is None:
        print("torch-lucent is not installed; `pip install --no-deps torch-lucent kornia==0.4.1 decorator` adds it")
        return
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peer's, of old releases of what it needs
    module, (name, says) = models.resnet18().eval(), processor()
    lines, details = [], {}
    for layer in LAYERS:
        times, side = in_turns(module, layer, args.rounds)
        question = f"channels a minute, ResNet-18 {layer}, equal steps, {says}"
        ratio, around = spread(times["torch-lucent"], times["ours"])
        most, _ = spread(times["torch-lucent"], times["the bare passes"])
        print(f"{question}: {ratio:.1f} times torch-lucent's ({around}); the bare passes {most:.1f}", flush=True)
        around = f"{around}; the bare passes alone {most:.2f}"
        lines.append(record.line(question, "torch-lucent's (more is better)", ratio, around, "5.00"))
        details[layer] = {"pixels": side, "seconds a channel and step": times}
    setup = f"cpu, {says}; medians of {args.rounds} rounds in turns, one thread, processor time"
    print(record.write(f"lucent_{name}", setup, lines, details, PACKAGES))


if __name__ == "__main__":
    main()
