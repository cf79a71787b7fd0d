"""Networks that nobody wrote: grown at random of what networks are made of, and every engine beside a second opinion.

    python -m tests.fuzz.networks --count 1000 --state networks.json     # goes on where the file says
    python -m tests.fuzz.networks --case 17

Each case is a network of up to 24 steps: convolutions of every kind, normalisations with scales of either sign,
rectifiers as modules, functions, in place and used twice, pools, resizings, skips, concatenations, splits, gates,
slices. It is asked for receptive fields (beside the measured support), the three backprop rules (beside functions with
the rule written out, in float64), a patch index (beside the maps themselves), the quick steps of synthesis, the sums of
DeepLift and LRP, and products (beside torch's counter).
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import sp_core as sp
from sp_core.capture import capture
from sp_core.patches import PatchIndex, build_patch_index
from sp_core.rules import RULES
from sp_core.synthesis.precision import Runner, quick_runner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reach import compared
from references import Reference

from tests.fuzz.grown import Grown


def check_fields(net: sp.Network) -> None:
    """Every unit's box and every law is what is measured."""
    for gates in ("local", "strict"):
        found = compared(net, gates)
        assert not found["wrong boxes"], f"{gates} boxes of {found['wrong boxes']}"
        assert not found["wrong laws"], f"{gates} laws of {found['wrong laws']}"


def check_rules(module: nn.Module, net: sp.Network, seed: int) -> None:
    """The three rules are those written out, of a class and of a unit, in float64."""
    double = sp.Network(copy.deepcopy(module).double(), input_size=net.input_size)
    images = torch.rand(2, *net.input_size, dtype=torch.float64)
    maps = [layer for layer in double.layers if layer.is_map]
    layer = random.Random(seed).choice(maps)
    for rule in RULES:
        for target in (2, f"{layer.name}:0@0,0"):
            x = images.clone().requires_grad_()
            with Reference(rule) as written:
                if target == 2:
                    value = double.clone()(x)[:, 2]
                else:
                    value = capture(double.clone(), x, [layer.name])[layer.name][:, 0, 0, 0]
            if not value.requires_grad or (rule != "gradient" and not written.count):
                continue  # refused: there is no path, or nothing that the rule could be applied to
            (want,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
            want = torch.zeros_like(x) if want is None else want
            got = sp.backprop(double, images, target, rule)
            error = float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))
            assert error < 1e-9, f"{rule} of {target}: {error:.1e}"


def check_index(net: sp.Network, count: int = 11, top: int = 3) -> None:
    """What an index keeps of each channel is what its maps say."""
    images = torch.rand(count, *net.input_size)
    with tempfile.TemporaryDirectory() as folder:
        list(build_patch_index(net, _Images(images), folder, top, batch=4))
        index = PatchIndex(folder)
        with torch.no_grad():
            parts = [net.normalise(part) for part in images.split(4)]
            maps = [capture(net.clone(), part, index.layers) for part in parts]
        for layer in index.layers:
            values = torch.cat([part[layer] for part in maps])
            values = values.flatten(2) if values.ndim > 2 else values[..., None]
            maxima, scale = values.amax(2), values.abs().max().clamp(min=1e-6)
            for channel in range(maxima.shape[1]):
                for side, largest in (("best", True), ("worst", False)):
                    want = maxima[:, channel].topk(top, largest=largest).values
                    for patch, value in zip(index.patches(sp.Unit(layer, channel), side, top), want, strict=True):
                        at = patch.unit.position or (0,)
                        flat = at[0] * net.layer(layer).output_shape[2] + at[1] if len(at) == 2 else 0
                        own = values[patch.image, channel, flat]
                        assert abs(patch.activation - value) < 1e-5 * scale, f"{layer}:{channel} {side} {value}"
                        assert abs(own - value) < 1e-5 * scale, f"{layer}:{channel} {side}: another place or image"


class _Images:
    name, classes, fingerprint = "noise", (), "0" * 16

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, start: int, stop: int, network: Any = None) -> tuple[Tensor, Tensor]:
        return self.images[start:stop], torch.full((stop - start,), -1)


def check_quick(net: sp.Network, seed: int) -> None:
    """The quick copy gives a layer up to rounding, and its gradient, where a rectifier next to 0 may open or shut."""
    layer = random.Random(seed).choice(net.layers).name
    images, found = torch.rand(3, *net.input_size), []
    for run in (Runner(net), quick_runner(net, "float32", [layer], net.input_size[1:])):
        x = images.clone().requires_grad_()
        map_ = run(x, [layer])[layer]
        weights = torch.rand(map_.shape, generator=torch.Generator().manual_seed(seed))
        gradient = torch.autograd.grad((map_ * weights).sum(), x)[0] if map_.requires_grad else torch.zeros(1)
        found.append((map_.detach(), gradient))
    for (one, other), most in zip(zip(*found, strict=True), (1e-4, 0.05), strict=True):
        assert (one - other).norm() <= most * one.norm() + 1e-6, f"{layer}: {(one - other).norm() / one.norm():.1e}"


def check_sums(net: sp.Network) -> None:
    """What DeepLift and LRP share out sums to what they say; LRP may refuse a network by name."""
    images = torch.rand(2, *net.input_size)
    for method in ("deep_lift", "lrp"):
        try:
            answer = sp.attribute(net, images, 2, method)
        except sp.SpError as error:
            assert method == "lrp", error
            continue
        assert answer.expected is not None
        assert answer.gap is not None
        error = float((answer.gap.abs() / answer.expected.abs().clamp(min=1e-3)).max())
        assert error < 2e-3, f"{method}: {error:.1e} of what is shared out"


def check_counts(net: sp.Network) -> None:
    """Products are those that torch's counter sees."""
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        net.clone()(torch.rand(1, *net.input_size))
    assert 2 * sp.complexity(net).macs == flops.get_total_flops()


def attempt(seed: int) -> str:
    """What is wrong with case ``seed``; ``""`` where nothing is."""
    module = Grown(seed).eval()
    net = sp.Network(module, name=f"grown {seed}", input_size=(3, module.side, module.side))
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_fields(net),
        lambda: check_rules(module, net, seed),
        lambda: check_index(net),
        lambda: check_quick(net, seed),
        lambda: check_sums(net),
        lambda: check_counts(net),
    )
    for name, check in zip(("fields", "rules", "index", "quick", "sums", "counts"), checks, strict=True):
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be reported
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{name}: {type(error).__name__} {error} ({Path(place.filename).name}:{place.lineno})"[:400]
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--state", type=Path, default=Path("fuzz-networks.json"))
    parser.add_argument("--case", type=int, help="grow one case, show its steps and what comes of it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.case is not None:
        grown = Grown(args.case)
        print(grown.side, *grown.steps, grown.parts, sep="\n")
        print(attempt(args.case) or "right")
        return
    state = json.loads(args.state.read_text()) if args.state.exists() else {"next": 0, "failures": []}
    while state["next"] < args.count:
        wrong = attempt(state["next"])
        if wrong:
            state["failures"].append([state["next"], wrong])
            print(state["next"], wrong, flush=True)
        state["next"] += 1
        args.state.write_text(json.dumps(state, indent=1))
    print(f"{args.count} networks, {len(state['failures'])} failures")
    sys.exit(bool(state["failures"]))


if __name__ == "__main__":
    main()
