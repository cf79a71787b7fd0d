"""DeepLift on any network: what each pixel adds on the way from a reference image to the image.

Every operation goes backwards with its *average slope* between the reference and the image in place of the slope at the
image (Shrikumar et al. 2017, section 3.5.1, the Rescale rule; Ancona et al. 2018, section 2.2, say it this way). So the
contributions, multiplier times difference of the pixel, add up to target(image) - target(reference)::

    elementwise y = f(x)      Δy / Δx, and where Δx is 0 (or nothing but rounding) f'(x)
    products  a · b           the mean of b for a, the mean of a for b: half of Δa·Δb to each side
    other mixtures            the derivative averaged over the straight way, by Gauss-Legendre points
    max-pool                  the rise up to max(y, y₀) to the image's winner, the fall from there to the reference's
    convolutions, sums, means, batch norm in evaluation …, which are linear: as in a gradient

Layer, group and instance norms are spelled out in these operations. The first three rows are one rule: the average over
the straight way of ``f`` elementwise is Δy/Δx, of a product the mean of the other side.

A thread-local function mode sees the operations of one call, whether modules, functions or methods call them, in place
or not; nothing is hung on a module. The reference passes first and leaves what each operation received; then the image
passes, and each operation finds its other end. What is not seen (scripted parts, masks such as ``x * (x > 0)``) goes
backwards as in a gradient, and the gap in completeness shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from sp_core.errors import SpError
from sp_core.lift_rules import LINEAR_IN_EACH, NORMS, RULES, Call, plain
from sp_core.network import Network
from sp_core.targets import Aim, values
from sp_core.trace import private_copy

TOLERANCE = 1e-3
"""The relative gap above which float32 rounding is ruled out by a second run in float64."""


@dataclass(frozen=True)
class Lifted:
    """What :func:`deep_lift` found.

    Attributes:
        multipliers: like the images, ``[n, c, h, w]``: the target's average slope per unit of pixel value.
        contributions: multipliers · (image - reference), in units of the target.
        expected: ``[n]``, float64: target(image) - target(reference), which the contributions should add up to.
        gap: ``[n]``, float64: what they add up to, minus ``expected``.
        precision: the type it was computed in: the network's own, or float64 when the gap was too large in that.
    """

    multipliers: Tensor
    contributions: Tensor
    expected: Tensor
    gap: Tensor
    precision: torch.dtype


def deep_lift(net: Network, images: Tensor, references: Tensor, aim: Aim) -> Lifted:
    """DeepLift's contributions of ``images`` against ``references``, both ``[n, c, h, w]`` in [0, 1].

    Args:
        net: the network; it is left as it was found.
        images: what is explained.
        references: what it is compared with, one for each image.
        aim: the classes or units, with positions.

    Raises:
        SpError: the forward pass takes another path for the reference than for the image, or none from the image to the
            target.

    >>> from sp_core.targets import read_target
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)), input_size=(3, 2, 2))
    >>> image = torch.rand(1, 3, 2, 2)
    >>> found = deep_lift(net, image, torch.zeros_like(image), read_target(net, 1, 1))
    >>> bool(found.gap.abs() < 1e-5)
    True
    """
    found = _lifted(net, images, references, aim)
    close = found.gap.abs() <= TOLERANCE * found.expected.abs()
    if bool(close.all()) or found.precision is torch.float64 or net.device.type == "mps":  # which has no float64
        return found
    return _lifted(in_float64(net), images.double(), references.double(), aim)


def _lifted(net: Network, images: Tensor, references: Tensor, aim: Aim) -> Lifted:
    with torch.inference_mode(False):
        images, references = images.detach().clone(), references.detach().clone()
        met: list[_Met] = []
        with torch.no_grad(), _Reference(met):
            start, _ = values(net, references, aim)
        met.reverse()
        pixels = images.requires_grad_()
        try:
            with torch.enable_grad(), _Image(met):
                end, _ = values(net, pixels, aim)
        except _OtherPathError as error:
            raise SpError(_other_path(net, *error.args)) from None
        if met:
            raise SpError(_other_path(net, "nothing", met[-1].name))
        if not end.requires_grad:
            raise SpError("The target does not depend on the image: there is no path from it to the pixels.")
        (multipliers,) = torch.autograd.grad(end.sum(), pixels, materialize_grads=True)
    images = images.detach()
    contributions = multipliers * (images - references)
    expected = end.detach().cpu().double() - start.cpu().double()
    gap = contributions.cpu().double().flatten(1).sum(1) - expected
    return Lifted(multipliers, contributions, expected, gap, images.dtype)


def in_float64(net: Network) -> Network:
    """The same network with a float64 copy of its weights."""
    memo: dict[int, Any] = {}
    for tensor in [*net.module.parameters(), *net.module.buffers()]:
        wide = tensor.detach().double() if tensor.is_floating_point() else tensor
        memo[id(tensor)] = nn.Parameter(wide, requires_grad=False) if isinstance(tensor, nn.Parameter) else wide
    module = private_copy(net.module, memo=memo)
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(part, name, value.double())
    return replace(net, module=module)


def _other_path(net: Network, here: str, there: str) -> str:
    return (
        f"{net.name} runs {here} on the image where it runs {there} on the reference, so DeepLift cannot compare the "
        "two; choose integrated gradients."
    )


# ---- The two passes
@dataclass(frozen=True)
class _Met:
    """An operation as the reference met it: its name and what it received."""

    name: str
    args: list[Any]


class _Pass(TorchFunctionMode):
    """Sees the operations that are not linear; what they receive or received from the reference is in ``met``."""

    def __init__(self, met: list[_Met]) -> None:
        super().__init__()
        self.met = met

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain(getattr(func, "__name__", ""))
        if name in NORMS:
            with self:  # its operations are seen one by one
                return NORMS[name](func, *args, **kwargs)
        tensors = [x for x in args if isinstance(x, Tensor) and x.is_floating_point()]
        if name not in RULES or len(tensors) < (2 if name in LINEAR_IN_EACH else 1):
            return func(*args, **kwargs)
        return self.at(name, func, list(args), kwargs)

    def at(self, name: str, func: Any, args: list[Any], kwargs: Any) -> Any:
        raise NotImplementedError


class _Reference(_Pass):
    """The first pass: notes what each operation receives, as copies, for later operations may write in place."""

    def at(self, name: str, func: Any, args: list[Any], kwargs: Any) -> Any:
        self.met.append(_Met(name, [x.detach().clone() if isinstance(x, Tensor) else x for x in args]))
        return func(*args, **kwargs)


class _Image(_Pass):
    """The second pass: each operation finds the reference's inputs and hangs its average slope into the graph."""

    def at(self, name: str, func: Any, args: list[Any], kwargs: Any) -> Any:
        met = self.met.pop() if self.met else _Met("nothing", [])  # taken from the end, and freed with this call
        if met.name != name or _shapes(met.args) != _shapes(args):
            raise _OtherPathError(name, met.name)
        live = [place for place, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
        if not live or (name in LINEAR_IN_EACH and len(live) == 1) or (name == "div" and live == [0]):
            return func(*args, **kwargs)
        fixed = [x.detach().clone() if place in live else x for place, x in enumerate(args)]
        first = args[0].detach().clone() if isinstance(args[0], Tensor) else args[0]
        with torch.no_grad():
            answer = func(first, *fixed[1:], **kwargs)
        call = Call(func, kwargs, fixed, met.args, live, answer)
        hung = _Hung.apply([answer], RULES[name](call), *(args[place] for place in live))
        written = isinstance(first, Tensor) and first._version > 0  # an in-place operation, however it was asked for
        return args[0].copy_(hung) if written else hung


class _OtherPathError(Exception):
    """The image's operation and the reference's are not the same."""


class _Hung(torch.autograd.Function):
    """An answer that was computed already, with a backward of ours."""

    @staticmethod
    def forward(ctx: Any, answer: list[Tensor], back: Callable[[Tensor], tuple[Tensor, ...]], *live: Tensor) -> Tensor:
        ctx.back = back
        return answer.pop()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arrived: Tensor) -> tuple[Any, ...]:
        return None, None, *ctx.back(arrived)


def _shapes(args: list[Any]) -> list[Any]:
    return [x.shape if isinstance(x, Tensor) else None for x in args]
