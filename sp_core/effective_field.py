"""The measured receptive field: where the gradient of the unit in the middle really is, over images.

The theoretical field says which pixels *can* change a unit. Luo et al. 2016, "Understanding the effective receptive
field in deep convolutional neural networks" (NeurIPS), measured how much each does: the gradient of the unit in the
middle of a map, averaged over images, is close to a Gaussian, far narrower than the theoretical field at
initialisation, and grows with training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sp_core.capture import capture
from sp_core.datasets.textures import LARGEST, SMALLEST, Textures
from sp_core.errors import SpError
from sp_core.network import Network, Unit
from sp_core.receptive_field import Box, blind_layers, field_of


@dataclass(frozen=True, eq=False)
class EffectiveField:
    """Gradient energy of the unit in the middle of a layer.

    Attributes:
        energy: float64 ``[h, w]`` on the CPU, sums to 1: the share of each pixel in the squared gradient, summed over
            input channels, images and (for ``channel=None``) the layer's channels.
        layer: the layer's name.
        channel: its channel, or None for all of them together.
        position: (y, x) of the unit.
        images: how many images were averaged over.
        centre: (y, x) mean of the energy, in pixels.
        sigma: (y, x) standard deviation of the energy, in pixels: that of the Gaussian with the largest likelihood. If
            the gradient itself is a Gaussian, its standard deviation is √2 times this.
        box: the unit's theoretical field, clipped by the image.
        fit: R² of that Gaussian (both axes, at ``centre``, with the energy's sum) as a prediction of the energy of the
            pixels in ``box``: 1 where the energy is a Gaussian, 0 where it does no better than a constant.
        pixels: how many pixels, the strongest first, hold 95 % of the energy; ``pixels / (box.height · box.width)`` is
            the effective share of the theoretical field.
    """

    energy: Tensor
    layer: str
    channel: int | None
    position: tuple[int, int]
    images: int
    centre: tuple[float, float]
    sigma: tuple[float, float]
    box: Box
    pixels: int
    fit: float

    @property
    def share(self) -> float:
        """Part of the theoretical field's area that holds 95 % of the energy."""
        return self.pixels / max(self.box.height * self.box.width, 1)


def effective_field(
    net: Network,
    layer: str,
    images: Tensor,
    channel: int | None = None,
    position: tuple[int, int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> EffectiveField:
    """Measure the field of the unit at ``position`` (the middle by default) of ``layer``.

    Args:
        net: the network.
        layer: a layer with positions.
        images: ``[n, c, h, w]`` in [0, 1].
        channel: one channel, or None for all together. For all of them each image gets one random sign a channel,
            which gives the summed energy of the channels in expectation, in one backward pass.
        position: (y, x) in the layer's map.
        seed: of the signs.
        batch: images at a time, each batch with one forward pass that stops at the layer and one backward pass; by
            default all of them, or as many as 2 GB hold.

    Raises:
        SpError: the layer has no positions, or no gradient arrives at the image.

    >>> net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5)), input_size=(3, 9, 9))
    >>> effective_field(net, "0", torch.rand(2, 3, 9, 9)).box
    Box(y0=2, y1=7, x0=2, x1=7)
    """
    found = net.layer_with_units(layer)
    if not found.is_map:
        raise SpError(f"Layer {layer} is a vector: it has no unit in the middle; choose a layer with positions.")
    if found.name in blind_layers(net):
        raise SpError(f"Layer {layer} is the same for every image: it sees no pixel; choose another.")
    y, x = position or (found.output_shape[1] // 2, found.output_shape[2] // 2)
    net.check(Unit(layer, channel or 0, (y, x)))
    images = net.check_images(images)
    if len(images) == 0:
        raise SpError("There are no images to measure the receptive field on; give at least one.")
    batch = batch or _at_once(net, layer, images)
    clone, random = net.clone(), torch.Generator().manual_seed(seed)
    energy = torch.zeros(*images.shape[-2:], dtype=torch.float64)
    for start in range(0, len(images), batch):
        inputs = images[start : start + batch].detach().clone().requires_grad_(True)
        units = capture(clone, net.normalise(inputs), [layer])[layer][:, :, y, x]  # [n, channels]
        if channel is None:
            signs = torch.randint(0, 2, units.shape, generator=random).to(units) * 2 - 1
        else:
            signs = torch.zeros_like(units)
            signs[:, channel] = 1
        (gradient,) = torch.autograd.grad(units, inputs, signs, allow_unused=True)
        if gradient is not None:
            energy += gradient.detach().cpu().double().square().sum((0, 1))  # squares of small float32 would be 0
    what = f"unit {y},{x} of {layer}" + ("" if channel is None else f", channel {channel},")
    if not bool(torch.isfinite(energy).all()):
        raise SpError(f"The gradient of {what} is not finite: the activations of {net.name} overflow on these images.")
    if float(energy.sum()) == 0:
        raise SpError(f"No gradient of {what} arrives at these {len(images)} images: it is dead there; choose another.")
    return _measured(energy / energy.sum(), layer, channel, (y, x), len(images), net)


def _at_once(net: Network, layer: str, images: Tensor) -> int:
    """How many images fit into 2 GB: each map on the way to ``layer`` is kept for the backward pass."""
    numbers = images[0].numel()
    for before in net.layers:
        numbers += math.prod(before.output_shape) if before.leaf else 0
        if before.name == layer:
            break
    return max(1, int(2e9 / (numbers * images.element_size())))


def _measured(
    energy: Tensor, layer: str, channel: int | None, at: tuple[int, int], count: int, net: Network
) -> EffectiveField:
    centre, sigma = [], []
    for axis in (0, 1):
        line = energy.sum(1 - axis)
        pixels = torch.arange(len(line), dtype=torch.float64)
        middle = float((line * pixels).sum())
        centre.append(middle)
        sigma.append(float((line * (pixels - middle).square()).sum().sqrt()))
    held = energy.flatten().sort(descending=True).values.cumsum(0)
    box = field_of(net, Unit(layer, channel or 0, at)).clipped
    inside = energy[box.y0 : box.y1, box.x0 : box.x1]
    left = (inside - _gaussian(energy.shape, centre, sigma)[box.y0 : box.y1, box.x0 : box.x1]).square().sum()
    spread = (inside - inside.mean()).square().sum()
    return EffectiveField(
        energy=energy,
        layer=layer,
        channel=channel,
        position=at,
        images=count,
        centre=(centre[0], centre[1]),
        sigma=(sigma[0], sigma[1]),
        box=box,
        pixels=int((held < 0.95).sum()) + 1,
        fit=float(1 - left / spread) if float(spread) > 0 else 0.0,
    )


def _gaussian(shape: Sequence[int], centre: Sequence[float], sigma: Sequence[float]) -> Tensor:
    """A Gaussian on pixels that sums to 1."""
    lines = []
    for size, middle, width in zip(shape, centre, sigma, strict=True):
        line = torch.exp(-((torch.arange(size, dtype=torch.float64) - middle) ** 2) / (2 * max(width, 1e-3) ** 2))
        lines.append(line / line.sum())
    return torch.outer(*lines)


def textures(net: Network, count: int, seed: int = 0) -> Tensor:
    """``count`` procedural textures as ``net`` sees them: ``[count, c, h, w]`` in [0, 1]."""
    side = min(max(*net.input_size[1:], SMALLEST), LARGEST)
    source = Textures(count=count, seed=seed, size=side)
    return torch.stack([net.view(source.picture(index)) for index in range(count)])


def initialised(net: Network, seed: int = 0) -> Network:
    """The same architecture with new random weights: every layer drawn again by its own rule, from ``seed``.

    The rule is the layer's ``reset_parameters`` (torch's default, not a recipe that the architecture may prescribe);
    normalisations start at the identity.

    Raises:
        SpError: some weights belong to a module that has no such rule.
    """
    module = copy.deepcopy(net.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in module.named_modules():
            own = [key for key, _ in part.named_parameters(recurse=False)]
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
            elif own:
                raise SpError(f"{name or type(part).__name__} has weights ({', '.join(own)}) but no rule to draw them.")
    return Network(
        module,
        name=f"{net.name}, initialised",
        input_size=net.input_size,
        mean=net.mean,
        std=net.std,
        classes=net.classes,
        architecture=net.architecture,
        source=f"random weights, seed {seed}",
        resize=net.resize,
    )
