"""captum's own attribution of one image beside ours: the same question, the same settings, and how the answers agree.

What is captum's stays captum's: it hangs its rules on modules, so that it misses what a network writes as functions
(``F.relu``, additions), and it takes a module that is called several times for one call. How each method is put to it
stands in :mod:`sp_core.asking_captum`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from sp_core.asking_captum import NAMES, ask
from sp_core.attribution import Attribution, attribute, check_settings
from sp_core.errors import SpError
from sp_core.methods import Job
from sp_core.network import Network
from sp_core.rules import backprop
from sp_core.targets import Target, read_target, values

SAME = 1e-4
"""The largest difference, relative to the largest value, that is called rounding."""


@dataclass(frozen=True)
class Captums:
    """What captum makes of one image.

    Attributes:
        name: captum's version and what was asked of it: ``"captum 0.9.0's Saliency"``.
        method: our key for it.
        map: ``[1, c, h, w]``, or ``[1, 1, h, w]`` where there is one value a pixel, in the units of ours; None where
            captum raised.
        raised: what it raised, in its own words; None where it did not.
        expected: what captum says that the map should add up to, in the target's units; None for methods that do not
            add up. For LRP the whole logit, the biases' share included.
        gap: what it adds up to minus ``expected``: captum's convergence delta.
        from_gradient: of deconvnet and guided backprop, the largest difference from the plain gradient (of guided
            Grad-CAM, from the plain gradient times Grad-CAM), relative to the largest value of that; else None.
        notes: why the two may differ here although neither is wrong.
    """

    name: str
    method: str
    map: Tensor | None
    raised: str | None
    expected: float | None
    gap: float | None
    from_gradient: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """How two maps agree.

    Attributes:
        correlation: Pearson's, of all values; NaN where one of the maps is constant or not finite.
        difference: the largest one, relative to the largest magnitude of ours; NaN where captum's is not finite,
            infinity where ours is zero and captum's is not.
        same: whether that is no more than rounding (``SAME``).
    """

    correlation: float
    difference: float
    same: bool


def captums(net: Network, image: Tensor, target: Target, method: str, **settings: Any) -> Captums:
    """What captum itself answers for ``target`` on one image ``[1, c, h, w]`` (or ``[c, h, w]``) in [0, 1].

    Args:
        net: the network; it is left as it was found, and any number of threads may ask.
        image: float, in [0, 1].
        target: one class or unit, as of :func:`sp_core.attribute`.
        method: a key of ``METHODS``.
        **settings: as of :func:`sp_core.attribute`.

    Raises:
        SpError: no such method, setting or target, more than one image, or a question that has no answer here (LRP of
            a unit, Grad-CAM where no layer has positions). Whatever captum raises is an answer.

    >>> import sp_core as sp
    >>> net = sp.load("bundled:textures-alexnet")
    >>> image = torch.rand(1, *net.input_size)
    >>> theirs = captums(net, image, 3, "guided")
    >>> agreement(theirs.map, sp.attribute(net, image, 3, "guided").map).same
    True
    """
    chosen = check_settings(method, settings)
    batch = net.check_images(image).detach()
    if len(batch) != 1:
        raise SpError(f"captum is asked about one image at a time; got {len(batch)}.")
    with torch.inference_mode(False), torch.no_grad():
        batch = batch.clone()
        value, aim = values(net, batch, read_target(net, target, 1))
    found, raised = ask(Job(net, batch, aim, float(value)), method, chosen)
    distance = None
    if found.map is not None and method in {"deconvnet", "guided", "guided_grad_cam"}:
        plain = backprop(net, batch, target, "gradient")
        if method == "guided_grad_cam":
            plain = plain * attribute(net, batch, target, "grad_cam", **chosen).map
        distance = _difference(found.map, plain)
    name = f"captum {version('captum')}'s {NAMES[method]}"
    shown = None if found.map is None else found.map.to(batch)
    return Captums(name, method, shown, raised, found.expected, found.gap, distance, found.notes)


def agreement(theirs: Tensor, ours: Tensor) -> Agreement:
    """How captum's map agrees with ours, both of one shape.

    >>> agreement(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    Agreement(correlation=1.0, difference=1.0, same=False)
    """
    pair = torch.stack([theirs.flatten(), ours.to(theirs).flatten()]).cpu().double()
    pair = pair - pair.mean(1, keepdim=True)
    a, b = pair / pair.norm(dim=1, keepdim=True)  # a constant map gives NaN
    difference = _difference(theirs, ours)
    return Agreement(round(float(a @ b), 12), difference, difference <= SAME)


def _difference(theirs: Tensor, ours: Tensor) -> float:
    apart = float((theirs - ours.to(theirs)).abs().max())
    return apart / size if (size := float(ours.abs().max())) else (float("inf") if apart else 0.0)


def sentence(theirs: Captums, ours: Attribution | None) -> str:
    """How captum's answer agrees with ours, for a person; ``ours`` is None where our method is not defined."""
    if theirs.map is None:
        return f"{theirs.name} raises {theirs.raised}"
    if not bool(theirs.map.isfinite().all()):
        return f"{theirs.name} is not finite here, without a warning."
    plain = f"the plain gradient{' times Grad-CAM' if theirs.method == 'guided_grad_cam' else ''}, without a warning"
    is_plain = theirs.from_gradient is not None and theirs.from_gradient <= SAME
    if ours is None:
        return f"{theirs.name} gives {plain if is_plain else 'a map all the same'}.{_adds_up(theirs, None)}"
    found = agreement(theirs.map, ours.map)
    if found.difference == 0:
        return f"{theirs.name} is the same as ours, bit for bit.{_adds_up(theirs, ours)}"
    verdict = "is the same as ours up to rounding" if found.same else f"is {plain}" if is_plain else "differs from ours"
    constant = found.correlation != found.correlation
    related = "no correlation, for one map is constant" if constant else f"correlation {found.correlation:.3f}"
    size = f"the largest difference is {found.difference:.2g} times our largest value"
    return f"{theirs.name} {verdict}: {related}; {size}.{_adds_up(theirs, ours)}"


def _adds_up(theirs: Captums, ours: Attribution | None) -> str:
    if theirs.gap is None or theirs.expected is None:
        return ""
    total = theirs.expected + theirs.gap
    words = f" It adds up to {total:.4g} of an expected {theirs.expected:.4g} (completeness error {theirs.gap:+.2g})"
    if ours is None or ours.gap is None or ours.expected is None:
        return f"{words}."
    gap, expected = float(ours.gap[0]), float(ours.expected[0])
    return f"{words}, ours to {gap + expected:.4g} of {expected:.4g} ({gap:+.2g})."
