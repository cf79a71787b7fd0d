"""Gradient, deconvnet and guided backprop: three ways to go backwards through a rectifier.

At a rectifier with forward input ``f`` and the signal ``R`` that arrives at its output on the way back, what goes on is
(Springenberg et al. 2015, section 3.4 and figure 1)::

    gradient    R · [f > 0]
    deconvnet   R · [R > 0]            (Zeiler & Fergus 2014; the switches of max-pooling are kept)
    guided      R · [f > 0] · [R > 0]

and all other operations go backwards as they do in a gradient. The rules hang on the nodes of this call's own autograd
graph, never on a module: ``nn.ReLU``, ``F.relu``, in-place and reused ones look the same there, and no other thread
sees a change.

What counts as a rectifier: ReLU, ReLU6 and other ``Hardtanh(0, b)``, ``clamp(min=0)``, ``Threshold``, ``maximum(x,
0)``, and the leaky ones (LeakyReLU, PReLU), for which ``[f > 0]`` above is their own slope. A clipped rectifier
passes nothing above its limit in the gradient and in guided backprop; deconvnet ignores the forward pass and so that
limit too. SiLU, GELU, Hardswish, ELU, sigmoid and tanh are not rectifiers: they let negative inputs through in part,
so ``[f > 0]`` is not what they do on the way forward, and cutting the signal at them would be another method under
this name. They go backwards as in a gradient, and the answer counts them. A rectifier written as ``x * (x > 0)``
cannot be told from a product.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.graph_rectifiers import CopyInPlace, hang, operations, sorted_out, walk
from sp_core.network import Network
from sp_core.targets import Aim, Target, read_target, values

RULES = ("gradient", "deconvnet", "guided")
_TITLES = {"gradient": "Gradient", "deconvnet": "Deconvnet", "guided": "Guided backprop"}
CHUNK = 32  # images in one graph: bounds the memory, and changes no number (in eval mode images do not mix)


@dataclass(frozen=True)
class Backprop:
    """A signal sent back from one unit, or one class, to the image.

    Attributes:
        gradient: like the images, ``[n, c, h, w]``, signed: change of the target per unit of pixel value, pixels in
            [0, 1] (the network's normalisation is part of the chain). For deconvnet and guided backprop it is no
            derivative of anything, only a picture.
        rule: one of ``RULES``.
        rectifiers: how many rectifiers lie between the target and the image (calls, not modules). The rule was
            applied at each.
        untouched: ``(name, count)`` of the other activations on the way, which go backwards as in a gradient.
        values: ``[n]``, the target's own value: a logit or an activation.
        targets: what it is called in each image, with the position that was taken: ``"layer4:20@3,5"``.
        notes: sentences on what is odd: an all-zero map and why, values that are not finite.
    """

    gradient: Tensor
    rule: str
    rectifiers: int
    untouched: tuple[tuple[str, int], ...]
    values: Tensor
    targets: tuple[str, ...]
    notes: tuple[str, ...]


def backprop(net: Network, images: Tensor, target: Target, rule: str = "guided") -> Tensor:
    """The signal of ``target`` sent back to the images by ``rule``: a tensor like ``images``, signed.

    Args:
        net: the network; it is left as it was found.
        images: float ``[n, c, h, w]`` (or one ``[c, h, w]``) in [0, 1].
        target: a class index, a list of them (one an image), a :class:`~sp_core.Unit`, or its string ``"layer4:20"`` or
            ``"layer4:20@3,5"``. A unit without a position is the channel's strongest position in each image.
        rule: ``"gradient"``, ``"deconvnet"`` or ``"guided"``; the module's text has the formulas.

    Raises:
        SpError: no such target or rule; or no rectifier lies between the target and the image, so that deconvnet and
            guided backprop would be the plain gradient under another name.

    >>> import sp_core as sp
    >>> net = sp.load("bundled:textures-alexnet")
    >>> sp.backprop(net, torch.rand(2, *net.input_size), target=3).shape == (2, *net.input_size)
    True
    """
    return explain_backprop(net, images, target, rule).gradient


def explain_backprop(net: Network, images: Tensor, target: Target, rule: str = "guided") -> Backprop:
    """:func:`backprop` with what it did on the way: rectifiers changed, activations left alone, values, notes."""
    return compare_backprop(net, images, target, (rule,))[rule]


def compare_backprop(
    net: Network, images: Tensor, target: Target, rules: Sequence[str] | None = None
) -> dict[str, Backprop]:
    """Several rules from one forward pass: rule to :class:`Backprop`. Arguments as of :func:`backprop`.

    Without ``rules``: all that are defined, which is the gradient alone where no rectifier lies on the way; its notes
    then say so.
    """
    for rule in rules or ():
        if rule not in RULES:
            raise SpError(f"`rule` must be one of {', '.join(RULES)}; got '{rule}'.")
    batch = net.check_images(images)
    if not len(batch):
        raise SpError("There is no image: `images` has 0 rows.")
    aim = read_target(net, target, len(batch))
    parts: dict[str, list[Backprop]] = {}
    for start in range(0, len(batch), CHUNK):
        stop = min(start + CHUNK, len(batch))
        piece = Aim(aim.layer, aim.channels[start:stop], aim.positions[start:stop])
        for rule, part in _send_back(net, batch[start:stop], piece, rules):
            parts.setdefault(rule, []).append(part)
    return {rule: _joined(found, images) for rule, found in parts.items()}


def _joined(parts: list[Backprop], images: Tensor) -> Backprop:
    whole = parts[0].gradient if len(parts) == 1 else torch.cat([part.gradient for part in parts])
    gradient = whole.reshape(images.shape).to(images)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    targets = tuple(name for part in parts for name in part.targets)
    first = parts[0]
    found = torch.cat([part.values for part in parts])
    return Backprop(gradient, first.rule, first.rectifiers, first.untouched, found, targets, notes)


def _send_back(net: Network, images: Tensor, aim: Aim, rules: Sequence[str] | None) -> Iterator[tuple[str, Backprop]]:
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        numbers, aim, nodes = _graph(net, pixels, aim)
        rectifiers, untouched = sorted_out(nodes)
        names = aim.names(net)
        asked = rules or (RULES if rectifiers else RULES[:1])
        for number, rule in enumerate(asked, 1):
            if rule != "gradient" and not rectifiers:
                raise SpError(_undefined(net, rule, names[0], untouched))
            handles = [handle for node, place in rectifiers for handle in hang(node, place, rule)]
            try:
                again = number < len(asked)  # the last rule frees the maps on its way: 5 % of the time of small ones
                (gradient,) = torch.autograd.grad(numbers.sum(), pixels, retain_graph=again, allow_unused=True)
            finally:
                for handle in handles:
                    handle.remove()
            gradient = torch.zeros_like(pixels) if gradient is None else gradient
            found = numbers.detach()
            notes = _notes(gradient, found, names, rule)
            if rules is None and not rectifiers:
                notes = (_undefined(net, "guided", names[0], untouched), *notes)
            yield rule, Backprop(gradient, rule, len(rectifiers), untouched, found, names, notes)


def _graph(net: Network, pixels: Tensor, aim: Aim) -> tuple[Tensor, Aim, list[Any]]:
    """The target's values, the aim with its positions, and the autograd nodes between the values and the pixels."""
    numbers, found = values(net, pixels, aim)
    nodes = walk(numbers)
    names = operations(nodes)
    if any("CopySlices" in name for name in names):  # an in-place operation on a view hides what it did
        with CopyInPlace():
            numbers, found = values(net, pixels, aim)
        nodes = walk(numbers)
        names = operations(nodes)
    if hidden := {name for name in names if re.search("DifferentiableGraph|CompiledFunction|Checkpoint", name)}:
        raise SpError(
            f"{net.name} runs compiled, scripted or checkpointed parts ({', '.join(sorted(hidden))}), whose rectifiers "
            "cannot be seen from outside; give the plain module."
        )
    return numbers, found, nodes


def _undefined(net: Network, rule: str, target: str, untouched: tuple[tuple[str, int], ...]) -> str:
    others = ", ".join(f"{count} {name}" for name, count in untouched)
    instead = f" (it has {others}, which are left as they are)" if others else ""
    return (
        f"{_TITLES[rule]} is undefined here: {net.name} has no rectifier between {target} and the image{instead}; "
        "use the rule 'gradient', or a target further up."
    )


def _notes(gradient: Tensor, found: Tensor, names: tuple[str, ...], rule: str) -> tuple[str, ...]:
    notes = []
    for name, value, signal in zip(names, found.tolist(), gradient, strict=True):
        low, high = (float(end) for end in torch.aminmax(signal))  # NaN and infinity stay
        if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
            notes.append(f"{name} or its map is not finite: the network overflows on this image.")
        elif low == high == 0:
            if value == 0:
                notes.append(f"{name} is exactly 0 on this image: it is switched off, and no signal passes back.")
            elif rule == "gradient":
                notes.append(f"The gradient of {name} is zero: no path from it to the image is switched on.")
            else:
                notes.append(f"{_TITLES[rule]} of {name} is zero: the rectifiers cut the whole signal on its way back.")
    return tuple(dict.fromkeys(notes))
