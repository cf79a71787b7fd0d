"""The loop of gradient ascent: picture → transforms → network → objective → one step of Adam, as a generator.

Nothing is kept on the network: its forward pass runs on a private copy, gradients are taken with
``torch.autograd.grad``, and what redirects them hangs on the graph of one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.synthesis import transforms
from sp_core.synthesis.objectives import Probe, together
from sp_core.synthesis.parameterizations import Colours, Fourier, Maco, Parametrisation, Pixel, natural_magnitude
from sp_core.synthesis.plan import Goal, Plan, make_plan
from sp_core.synthesis.precision import Runner, quick_runner, widened
from sp_core.synthesis.rectifiers import BeforeReLU, redirect
from sp_core.synthesis.settings import AscentSettings
from sp_core.synthesis.takeoff import TakeOff


@dataclass(frozen=True)
class AscentStep:
    """The state after one step, for n pictures: first all copies of the first goal, then those of the second …

    Attributes:
        step, steps: this one, from 1, and how many there will be.
        images: float32 ``[n, c, h, w]`` in [0, 1], on the network's device.
        activation: ``[n]``, the objective, whatever the sign. In the last record it is measured on ``images`` as they
            are; before that, on the transformed pictures that the step was computed from. With the sign -1, and for
            single positions, it is the value before the ReLU if the unit ends in one.
        names: what each picture is of.
        messages: for each picture, why it is not what one hopes for; ``""`` where all is well.
        history: ``activation`` of each step so far, this one included.
        last: whether this is the final record.
        peak: ``[n]`` in the final record, else None: the value of the unit at its strongest position (its weakest for
            the sign -1), as an index of real patches has it; the objective where the goal is not a unit.
        percentile: ``[n]`` in the final record if real activations were given and the sign is 1, else None: how many
            per cent of them are below ``peak``.
        precision: what the products of the steps were computed in, ``"bfloat16"`` or ``"float32"``.
    """

    step: int
    steps: int
    images: Tensor
    activation: Tensor
    names: tuple[str, ...]
    messages: tuple[str, ...]
    history: tuple[Tensor, ...] = ()
    last: bool = False
    peak: Tensor | None = None
    percentile: Tensor | None = None
    precision: str = "float32"


def ascend(
    net: Network,
    units: Goal | Sequence[Goal],
    settings: AscentSettings | None = None,
    *,
    examples: Tensor | None = None,
    reference: Tensor | None = None,
    start: Tensor | None = None,
) -> Iterator[AscentStep]:
    """Pictures that drive units of a network, made from noise by gradient ascent.

    Args:
        net: the network.
        units: a class number, class name, unit ("layer4:20", "layer4:20@3,5"), :class:`Direction` or
            :class:`Objective`, or a list of them; at most 64 pictures at once.
        settings: see :class:`AscentSettings`.
        examples: images ``[m, c, ., .]`` in [0, 1] of the network's dataset, whose colour statistics (and magnitudes,
            for "maco") the pictures get; None takes ImageNet's colours and a 1/f spectrum.
        reference: activations on real data, ``[k]`` for all units or ``[units, k]``: the percentile's.
        start: image ``[c, h, w]`` in [0, 1] to start from in place of noise; its size is the pictures' size.

    Yields:
        One :class:`AscentStep` a step. It can be stopped between any two.

    Raises:
        SpError: at the call, what is asked for does not exist; in a step, a value is not a number.

    Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017; Erhan et al. 2009; Simonyan et al. 2013.

    >>> net = sp.load("bundled:textures-vgg")
    >>> *_, last = sp.ascend(net, 3, sp.AscentSettings(steps=4))
    >>> last.images.shape
    torch.Size([1, 3, 64, 64])
    """
    settings = settings or AscentSettings()
    if start is not None:
        start = _checked_images(net, start, "start")[:1]
    plan = make_plan(net, units, settings, None if start is None else (start.shape[2], start.shape[3]))
    if examples is not None:
        examples = _checked_images(net, examples, "examples")
    if reference is not None and tuple(reference.shape[:-1]) not in {(), (len(plan.objectives),)}:
        raise SpError(f"`reference` must be [k] or [{len(plan.objectives)}, k]; got {list(reference.shape)}.")
    with _gradients():
        quick = quick_runner(net, settings.precision, plan.layers, plan.size)
        work = _Work(net, plan, settings, quick, quick if quick.exact else Runner(net))
        picture = _first_picture(work, examples, start)
    return _steps(work, picture, reference)


@dataclass(frozen=True)
class _Work:
    """What all steps of one ascent share."""

    net: Network
    plan: Plan
    settings: AscentSettings
    quick: Runner
    exact: Runner

    @cached_property
    def at_once(self) -> Callable[[Probe], Tensor] | None:
        """The values of all pictures in one look, where that is possible."""
        return together(self.plan.objectives, self.settings.copies)

    def probe(self, images: Tensor, exact: bool = False) -> Probe:
        """Run the network on images in [0, 1], as far as the objectives look; ``exact`` in its own precision."""
        with BeforeReLU() if self.plan.before_relu else nullcontext() as before:
            maps = (self.exact if exact else self.quick)(images, self.plan.layers)
        return Probe(widened(maps), {} if before is None else widened(before.of(maps)))

    def values(self, probe: Probe) -> Tensor:
        """The objective of each picture, ``[n]``."""
        if self.at_once is not None:
            return self.at_once(probe)
        copies, found = self.settings.copies, []
        parts = probe.split(copies) if len(self.plan.objectives) > 1 else [probe]
        for objective, part in zip(self.plan.objectives, parts, strict=True):
            value = objective(part)
            if value.shape != (copies,):
                raise SpError(f"An objective gives one number an image; {objective.name} gives {list(value.shape)}.")
            found.append(value)
        return torch.cat(found)

    def peaks(self, probe: Probe, values: Tensor) -> Tensor:
        """The unit of each picture where it is strongest (for the sign -1: weakest), ``[n]``."""
        copies, found = self.settings.copies, []
        for index, unit in enumerate(self.plan.peaks):
            part = slice(index * copies, (index + 1) * copies)
            if unit is None:
                found.append(values[part])
                continue
            maps = probe(unit[0]) if self.settings.sign > 0 else probe.unrectified(unit[0])
            channel = maps[part, unit[1]].reshape(copies, -1)
            found.append(channel.amax(1) if self.settings.sign > 0 else channel.amin(1))
        return torch.cat(found)


def _steps(work: _Work, picture: Parametrisation, reference: Tensor | None) -> Iterator[AscentStep]:
    plan, settings = work.plan, work.settings
    generator = torch.Generator().manual_seed(settings.seed)
    with _gradients():
        adam = Adam(picture.parameters, settings.rate)
    changes = transforms.usual(plan.size, settings.transforms)
    names = tuple(name for name in plan.names for _ in range(settings.copies))
    watch = TakeOff(names, settings)
    history: list[Tensor] = []
    down = torch.full((len(names),), -float(settings.sign))  # Adam goes down, and the objective is to rise
    for step in range(1, settings.steps + 1):
        with _gradients():
            images = seen = picture.images()
            for change in changes:
                seen = change(seen, generator)
            values = work.values(work.probe(seen))
            moves = values.requires_grad
            if moves and watch.wants_redirect(step):
                redirect(values)
            gradients = _gradient(values, picture.parameters, down)
            adam.step(gradients)
        reached = values.detach()
        watch.note(step, reached, gradients if moves else None)
        if step == settings.steps or watch.hopeless:
            break
        history.append(reached)
        yield AscentStep(
            step,
            settings.steps,
            _shown(images),
            history[-1],
            names,
            watch.messages,
            tuple(history),
            precision=work.quick.precision,
        )
    with torch.no_grad():
        images = picture.images()
        probe = work.probe(images, exact=True)
        values = work.values(probe)
        peak = work.peaks(probe, values)
        # Whether it rose is judged in the precision of the first step: rounding must not pass for a rise.
        judged = values if work.quick is work.exact else work.values(work.probe(images))
    watch.note(step, judged, gradients if moves else None, last=True)
    done = (*history, values)
    said = (names, watch.messages, done, True, peak, None, work.quick.precision)
    result = AscentStep(step, settings.steps, _shown(images), values, *said)
    if reference is not None and settings.sign > 0:
        result = replace(result, percentile=_percentile(peak, reference, settings.copies))
    yield result


# --- the parts of a step ----------------------------------------------------------------------------------------------


@contextmanager
def _gradients() -> Iterator[None]:
    """Gradients on, whatever the caller has switched off; never across a yield."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Adam:
    """Kingma and Ba 2015, algorithm 1, for tensors whose gradients are handed in. No state outside, no compiler."""

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self._rows = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self._rate, self._count = rate, 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move each parameter against its gradient."""
        self._count += 1
        # The corrections of both means for their start at zero, as numbers: two passes less over the parameters.
        first, second = 1 - 0.9**self._count, math.sqrt(1 - 0.999**self._count)
        for (parameter, mean, square), gradient in zip(self._rows, gradients, strict=True):
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter.addcdiv_(mean, square.sqrt().add_(1e-8 * second), value=-self._rate * second / first)


def _gradient(values: Tensor, parameters: Sequence[Tensor], down: Tensor) -> list[Tensor]:
    """The gradient of the sum of ``values * down`` for each parameter; zeros where there is no path to it."""
    if not values.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(values, parameters, down.to(values), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _first_picture(work: _Work, examples: Tensor | None, start: Tensor | None) -> Parametrisation:
    """Noise (the same for every goal, so that a unit's picture does not depend on its neighbours), or ``start``."""
    settings, channels = work.settings, work.net.input_size[0]
    colours = Colours.usual(channels) if examples is None else Colours.of(examples)
    kinds: dict[str, type[Parametrisation]] = {"fourier": Fourier, "pixel": Pixel, "maco": Maco}
    kind = kinds[settings.parametrisation]
    if kind is Pixel:
        colours = Colours.plain(channels)  # the naive picture, for comparison
    if start is not None:
        first = kind.of(start.repeat(settings.copies, 1, 1, 1), colours)
    else:
        generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same start on every device
        h, w = work.plan.size
        shape = (settings.copies, channels, h, w)
        magnitude = natural_magnitude(shape[1:], colours, examples) if kind is Maco else None
        first = kind.noise(shape, colours, generator, magnitude)
    return first.spread(len(work.plan.objectives), work.net.device)


def _checked_images(net: Network, images: Tensor, name: str) -> Tensor:
    """``images`` as float32 ``[n, c, h, w]`` on the CPU; raises SpError when they cannot be in [0, 1]."""
    images = net.check_images(images).detach().float().cpu()
    if not torch.isfinite(images).all() or images.min() < 0 or images.max() > 1 or images.numel() == 0:
        raise SpError(f"`{name}` must be images with values in [0, 1].")
    return images


def _shown(images: Tensor) -> Tensor:
    return images.detach().float()


def _percentile(peak: Tensor, reference: Tensor, copies: int) -> Tensor:
    rows = reference.to(peak).expand(len(peak) // copies, -1).repeat_interleave(copies, 0)  # [n, k]
    return (rows < peak[:, None]).double().mean(1) * 100
