"""Networks that nobody wrote: grown at random of what networks are made of, and every engine beside a second opinion.

    python -m tests.fuzz.networks --count 1000 --state networks.json     # goes on where the file says
    python -m tests.fuzz.networks --case 17

Each case is a network of 6 to 24 steps: convolutions of every kind, normalisations with scales of either sign,
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
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import sp_core as sp
from sp_core.capture import capture
from sp_core.patches import PatchIndex, build_patch_index
from sp_core.rules import RULES
from sp_core.synthesis.precision import Runner, quick_runner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reach import compared

RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu_": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "clamp": lambda x: x.clamp(min=0),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 0.5),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "maximum": lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype, device=x.device)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
}
ELSE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "scale": lambda x: 0.7 * x - 0.1,
    "context": lambda x: x + x.mean((2, 3), keepdim=True),
    "top": lambda x: x[:, :, 1:, :],
    "every other": lambda x: x[:, :, ::2, 1::2],
    "pad": lambda x: F.pad(x, (2, 0, 1, 1)),
    "reflect": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "larger": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "smooth": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
    "corners": lambda x: F.interpolate(x, size=(x.shape[2] + 3, x.shape[3] * 2), mode="bilinear", align_corners=True),
    "thirds": lambda x: F.adaptive_avg_pool2d(x, (max(1, x.shape[2] // 3), max(1, x.shape[3] // 2))),
}


class Grown(nn.Module):
    """A network grown from ``seed`` for images of ``side`` pixels; ``steps`` says what it does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.side = self.random.choice([17, 20, 24, 31])
        self.parts = nn.ModuleList([nn.ReLU(), nn.ReLU(inplace=True)])  # used again and again
        self.steps: list[tuple[Any, ...]] = []
        self.head = nn.Identity()
        state: tuple[Tensor, list[Tensor], bool] = (torch.rand(2, 3, self.side, self.side), [], False)
        with torch.no_grad():
            for _ in range(self.random.randint(6, 24)):
                state = self._grow(*state)
            self.head = nn.Linear(state[0].shape[1], 5)
        del self.random

    def forward(self, image: Tensor) -> Tensor:
        x, kept = image, []
        for step in self.steps:
            x = self._do(step, x, kept)
        return self.head(x.mean((2, 3)))

    def _do(self, step: tuple[Any, ...], x: Tensor, kept: list[Tensor]) -> Tensor:
        kind, what = step
        if kind == "part":
            return self.parts[what](x)
        if kind == "rectify":
            return RECTIFIERS[what](x)
        if kind == "else":
            return ELSE[what](x)
        if kind == "keep":
            kept.append(x)
        elif kind == "add":
            x = x + kept[what]
        elif kind == "add in place":
            x += kept[what]
        elif kind == "place":
            x = x + self.parts[what](self.parts[what].weight.new_ones(1, 2, *x.shape[2:]))
        elif kind == "cat":
            x = torch.cat([x, kept[what]], 1)
        elif kind == "gate":
            x = x * torch.sigmoid(self.parts[what](x.mean((2, 3), keepdim=True)))
        elif kind == "shuffle":
            x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        elif kind == "halves":
            one, two = x.chunk(2, 1)
            x = torch.cat([self.parts[what](one), two], 1)
        return x

    def _grow(self, x: Tensor, kept: list[Tensor], zeros: bool) -> tuple[Tensor, list[Tensor], bool]:
        """Add one step that fits ``x``; ``zeros``: whether values may be exactly 0, where rules would be ambiguous."""
        step, clear = self._drawn(x, kept, zeros)
        if step is None:
            return x, kept, zeros
        self.steps.append(step)
        rectified = step[0] in {"rectify", "halves"} or step in {("part", 0), ("part", 1)}
        return self._do(step, x, kept), kept, not clear and (zeros or rectified)

    def _drawn(self, x: Tensor, kept: list[Tensor], zeros: bool) -> tuple[tuple[Any, ...] | None, bool]:
        """A step, and whether it leaves no exact zeros."""
        draw, (channels, h, w) = self.random, x.shape[1:]
        fresh = bool(self.steps) and self.steps[-1][0] == "part" and self.steps[-1][1] > 1 and not zeros
        kind = draw.choice(
            ["conv"] * 6 + ["norm"] * 2 + ["rectify"] * 5 + ["pool", "else", "else", "skip", "skip", "mix"]
        )
        if kind == "conv":
            again = [k for k, part in enumerate(self.parts) if getattr(part, "in_channels", 0) == channels]
            if again and draw.random() < 0.2 and min(h, w) > 9:
                return ("part", draw.choice(again)), True
            return self._part(self._conv(channels, h, w)), True
        if kind == "norm":
            norm = nn.BatchNorm2d(channels) if draw.random() < 0.8 else nn.GroupNorm(1, channels)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.3, 2)
            return self._part(norm.eval()), True
        if kind == "rectify":
            if zeros:
                return None, False
            if draw.random() < 0.4:
                return ("part", draw.choice([0, 1]) if fresh else 0), False
            name = draw.choice(list(RECTIFIERS))
            return ("rectify", name if fresh or not name.endswith("_") else "F.relu"), False
        if kind == "pool":
            size, stride = draw.choice([2, 3]), draw.choice([1, 2])
            if min(h, w) < 6:
                return None, False
            ceil, pad = draw.random() < 0.5, draw.choice([0, 1])
            pool = nn.MaxPool2d(size, stride, pad, draw.choice([1, 2]), ceil_mode=ceil)
            return self._part(pool if draw.random() < 0.5 else nn.AvgPool2d(size, stride, pad, ceil)), False
        if kind == "else":
            name = draw.choice(list(ELSE))
            large, small = max(h, w) > 40, min(h, w) < 6
            if (large and name in {"larger", "smooth", "corners"}) or (
                small and name in {"top", "every other", "thirds", "reflect"}
            ):
                return None, False
            return ("else", name), False
        if kind == "skip":
            same = [k for k, one in enumerate(kept) if one.shape == x.shape]
            near = [k for k, one in enumerate(kept) if one.shape[2:] == x.shape[2:]]
            if same and draw.random() < 0.6:
                return ("add in place" if fresh and draw.random() < 0.5 else "add", draw.choice(same)), False
            if near and channels < 24:
                return ("cat", draw.choice(near)), False
            return ("keep", None), False
        if channels % 2 == 0 and draw.random() < 0.6:
            return (("shuffle", None) if draw.random() < 0.5 or zeros else ("halves", 0)), False
        if draw.random() < 0.3:
            return ("place", self._part(nn.Conv2d(2, channels, 1))[1]), False
        gate = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1))
        return ("gate", self._part(gate)[1]), False

    def _part(self, part: nn.Module) -> tuple[str, int]:
        self.parts.append(part)
        return "part", len(self.parts) - 1

    def _conv(self, channels: int, h: int, w: int) -> nn.Module:
        draw = self.random
        out = draw.choice([4, 6, 8])
        if min(h, w) < 6:
            return nn.Conv2d(channels, out, 1)
        if draw.random() < 0.12 and max(h, w) < 32:
            return nn.ConvTranspose2d(channels, out, draw.choice([2, 3]), draw.choice([1, 2]), draw.choice([0, 1]))
        kernel = draw.choice([1, 2, 3, 3, 3, (1, 3), (3, 1), 5])
        stride, mode = (
            draw.choice([1, 1, 1, 2, (1, 2)]),
            draw.choice(["zeros"] * 4 + ["reflect", "replicate", "circular"]),
        )
        groups = draw.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
        out = -(-out // groups) * groups
        dilation, padding = draw.choice([1, 1, 2]) if kernel == 3 else 1, draw.choice([0, 1, 2])
        return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, padding_mode=mode)


# --- the second opinions ----------------------------------------------------------------------------------------------


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str, high: float, slope: float) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(torch.where(x > 0, (x < high).to(x), slope))
        return torch.where(x > 0, x.clamp(max=high), slope * x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (own,) = ctx.saved_tensors
        if ctx.rule != "gradient":
            grad = torch.where(grad > 0, grad, 0.0)
        return grad if ctx.rule == "deconvnet" else grad * own, None, None, None


class Written(TorchFunctionMode):
    """Replaces rectifiers by functions with the rule written out, in modules too, for they call the same functions."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule, self.count = rule, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        high, slope = float("inf"), 0.0
        if name in {"relu6", "hardtanh"}:
            high = 6.0 if name == "relu6" else kwargs["max_val"] if "max_val" in kwargs else args[2]
        elif name == "leaky_relu":
            slope = 0.2
        elif name not in {"relu", "relu_", "maximum", "_threshold"} and not (
            name == "clamp" and kwargs.get("min") == 0
        ):
            return func(*args, **kwargs)
        self.count += 1
        return _Rule.apply(args[0], self.rule, high, slope)


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
            with Written(rule) as written:
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
            values = torch.cat([part[layer] for part in maps]).flatten(2) if net.layer(layer).is_map else None
            values = torch.cat([part[layer] for part in maps])[..., None] if values is None else values
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
