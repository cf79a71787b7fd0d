"""The rules of DeepLift: how each operation that is not linear goes backwards between a reference and an image.

:mod:`sp_core.deep_lift` has the formulas in words and runs the two passes; a rule here makes, from one call, the
function that takes the signal from its output to its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One operation on the image: its inputs, the reference's (``others``), which of them depend on the image (their
    places), and its answer.
    """

    func: Any
    kwargs: dict[str, Any]
    args: list[Any]
    others: list[Any]
    live: list[int]
    answer: Tensor

    def run(self, args: list[Any]) -> Tensor:
        """The operation on other inputs, which stay as they are."""
        first = args[0].clone() if isinstance(args[0], Tensor) else args[0]
        answer: Tensor = self.func(first, *args[1:], **self.kwargs)
        return answer


Back = Callable[[Tensor], tuple[Tensor, ...]]


def _curve(call: Call) -> Back:
    """Δy/Δx of an elementwise function; its derivative half-way where Δx is 0 or drowns in rounding."""
    x, x0 = call.args[0], call.others[0]
    if call.live != [0] or call.answer.shape != x.shape:
        return _averaged(call)
    run, middle = x - x0, (x + x0) / 2
    least = 0.0 if plain(call.func.__name__) in _STRAIGHT else torch.finfo(x.dtype).eps ** 0.5 * (1 + middle.abs())
    steep = run.abs() > least
    with torch.no_grad():
        rise = call.answer - call.run([x0, *call.args[1:]])
    slope = torch.where(steep, rise / torch.where(steep, run, 1.0), 0.0)
    if not bool(steep.all()):
        with torch.enable_grad():
            middle.requires_grad_()
            (there,) = torch.autograd.grad(call.run([middle, *call.args[1:]]).sum(), middle)
        slope = torch.where(steep, slope, there)
    return lambda arrived: (arrived * slope,)


def _product(call: Call) -> Back:
    """Of ``a · b``: the mean of the other factor, so that both share Δa·Δb evenly."""
    means = [(here + there) / 2 for here, there in zip(call.args[:2], call.others[:2], strict=True)]
    shapes = [call.args[place].shape for place in (0, 1)]
    return lambda arrived: tuple((arrived * means[1 - place]).sum_to_size(shapes[place]) for place in (0, 1))


def _averaged(call: Call, points: int = 16) -> Back:
    """The derivative averaged over the straight way between the two ends."""
    places, shares = gauss_legendre(points)

    def back(arrived: Tensor) -> tuple[Tensor, ...]:
        total = [torch.zeros_like(call.args[place]) for place in call.live]
        for at, share in zip(places, shares, strict=True):
            args = list(call.args)
            for place in call.live:
                args[place] = torch.lerp(call.others[place], call.args[place], at).requires_grad_()
            with torch.enable_grad():
                answer = call.run(args)
            parts = torch.autograd.grad(answer, [args[place] for place in call.live], arrived, allow_unused=True)
            total = [old if new is None else old + share * new for old, new in zip(total, parts, strict=True)]
        return tuple(total)

    return back


def _bilinear(call: Call) -> Back:
    return _averaged(call, 2)  # exact for products of up to four factors


def _max_pool(call: Call) -> Back:
    """From the reference's maximum up to the larger of the two: to the image's winner. From there: the reference's.

    A winner in one picture that is as large as the other's winner, as in flat parts of a reference, serves in both.
    """
    x, x0 = call.args[0], call.others[0]
    pool = getattr(F, call.func.__name__)
    first = -int(call.func.__name__[-2])  # of the dimensions that the windows go over: max_pool2d has two
    settings = {**call.kwargs, "return_indices": True}
    with torch.no_grad():
        pairs = [pool(z, *call.args[1:], **settings) for z in (x, x0)]
    (y, winner), (y0, winner0) = ((values.flatten(first), places.flatten(first)) for values, places in pairs)
    here, there, top = x.flatten(first), x0.flatten(first), torch.maximum(y, y0)
    ups = torch.where(_even(here.gather(-1, winner0), y), winner0, winner)
    downs = torch.where(_even(there.gather(-1, winner), y0), winner, winner0)
    run = here - there
    up = _ratio(top - y0, run.gather(-1, ups), 1.0)
    down = _ratio(y - top, run.gather(-1, downs), 0.0)

    def back(arrived: Tensor) -> tuple[Tensor]:
        signal = arrived.flatten(first)
        below = torch.zeros_like(run).scatter_add_(-1, ups, signal * up).scatter_add_(-1, downs, signal * down)
        return (below.view(x.shape),)

    return back


def _even(value: Tensor, best: Tensor) -> Tensor:
    """Whether they are equal but for rounding."""
    return best - value <= 64 * torch.finfo(best.dtype).eps * best.abs()


def _ratio(rise: Tensor, run: Tensor, otherwise: float) -> Tensor:
    return torch.where(run == 0, otherwise, rise / torch.where(run == 0, 1.0, run))


def gauss_legendre(points: int) -> tuple[list[float], list[float]]:
    """Places in [0, 1] and their shares of the average over it: exact for polynomials of degree 2 · points - 1."""
    at, weight = np.polynomial.legendre.leggauss(points)
    return ((at + 1) / 2).tolist(), (weight / 2).tolist()


def plain(name: str) -> str:
    """``"mul"`` of ``mul_``, ``__mul__`` and ``__imul__``; ``"relu"`` of ``relu_``."""
    bare = name.strip("_")
    return _ALIASES.get(bare, bare)


_ALIASES = {"imul": "mul", "rmul": "mul", "multiply": "mul", "truediv": "div", "idiv": "div", "divide": "div"}
_ALIASES |= {"true_divide": "div", "rpow": "rpow", "ipow": "pow", "rtruediv": "rdiv", "clip": "clamp"}


# ---- Which operation goes by which rule; what is in no table goes backwards as in a gradient
_STRAIGHT = {"relu", "relu6", "hardtanh", "leaky_relu", "threshold", "clamp", "clamp_min", "clamp_max", "prelu", "abs"}
_BENT = {"silu", "gelu", "mish", "elu", "selu", "celu", "softplus", "hardswish", "hardsigmoid", "sigmoid", "tanh"}
_BENT |= {"exp", "exp2", "log2"}
_BENT |= {"log_sigmoid", "logsigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink", "rrelu", "square", "pow"}
_BENT |= {"rpow", "rdiv", "reciprocal", "sqrt", "rsqrt", "log", "log1p", "expm1", "erf", "sin", "cos", "absolute"}
_BENT |= {"maximum", "minimum"}  # with a constant; of two maps they are averaged
LINEAR_IN_EACH = {"mul", "matmul", "mm", "bmm", "einsum"}
RULES: dict[str, Callable[[Call], Back]] = {
    **dict.fromkeys(_STRAIGHT | _BENT, _curve),
    **dict.fromkeys(LINEAR_IN_EACH, _bilinear),
    "mul": _product,
    **dict.fromkeys(("div", "softmax", "log_softmax", "normalize", "local_response_norm", "amax", "amin"), _averaged),
    "scaled_dot_product_attention": _averaged,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _max_pool),
}


# ---- Norms over a map's own statistics, spelled out
def _standardised(x: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    away = x - x.mean(over, keepdim=True)
    return away * torch.rsqrt((away * away).mean(over, keepdim=True) + eps)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(
    _: Any, x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_more: Any
) -> Tensor:
    return _scaled(_standardised(x, tuple(range(-len(tuple(shape)), 0)), eps), weight, bias)


def _group_norm(
    _: Any, x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_more: Any
) -> Tensor:
    whole = _standardised(x.reshape(x.shape[0], groups, -1), (2,), eps).view(x.shape)
    return _scaled(whole, _a_channel(weight, x), _a_channel(bias, x))


def _instance_norm(func: Any, x: Tensor, *rest: Any, **settings: Any) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = {**dict(zip(names, rest, strict=False)), **settings}
    if not given.get("use_input_stats", True):  # its running statistics are constants
        with torch._C.DisableTorchFunction():
            return func(x, *rest, **settings)  # type: ignore[no-any-return]
    whole = _standardised(x, tuple(range(2, x.ndim)), given.get("eps", 1e-5))
    return _scaled(whole, _a_channel(given.get("weight"), x), _a_channel(given.get("bias"), x))


def _a_channel(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else values.view(1, -1, *[1] * (x.ndim - 2))


NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
