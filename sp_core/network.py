"""A network: a module, how it is fed, what its classes are called, and a fingerprint of its weights."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import EllipsisType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sp_core import images as pictures
from sp_core.errors import SpError
from sp_core.overwriting import frozen
from sp_core.trace import Layer, input_dtype, private_copy, single, trace_layers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_PIXELS_A_SIDE = 4096  # of an input that a person asks for


@dataclass(frozen=True)
class Unit:
    """One channel of one layer, or one position of it.

    Its string form, used in links, files and the command line, is ``layer:channel`` or ``layer:channel@y,x``.

    >>> Unit.parse("layer4:20"), str(Unit("conv1", 3, (0, 7)))
    (Unit(layer='layer4', channel=20, position=None), 'conv1:3@0,7')
    """

    layer: str
    channel: int
    position: tuple[int, int] | None = None

    def __str__(self) -> str:
        where = f"@{self.position[0]},{self.position[1]}" if self.position else ""
        return f"{self.layer}:{self.channel}{where}"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read the string form; raises SpError when it is not one."""
        match = re.fullmatch(r"(.+):(\d+)(?:@(\d+),(\d+))?", text.strip())
        if not match:
            raise SpError(f"A unit is written layer:channel or layer:channel@y,x, such as 'layer4:20'; got '{text}'.")
        layer, channel, y, x = match.groups()
        return cls(layer, int(channel), (int(y), int(x)) if y is not None else None)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """16 hexadecimal digits that name the content: the names, shapes, types and values of ``tensors``.

    The order of the dictionary, the device and the memory layout do not matter.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@dataclass(eq=False)
class Network:
    """A module in evaluation mode with its preprocessing. Shared by threads, therefore never changed.

    The module given is not touched: the network keeps its own copy of the structure, which shares the memory of the
    weights, is in ``eval()`` mode, wants no gradients for weights and has no in-place activations, except those without
    which it would compute something else (:mod:`sp_core.overwriting`).

    Attributes:
        module: maps normalised images ``[n, c, h, w]`` to logits ``[n, classes]``.
        name: what it is called on the screen.
        input_size: ``(channels, height, width)`` it is fed with.
        mean, std: per channel, of images in [0, 1]; None when it takes [0, 1] as it is.
        classes: class names in index order, or None when only their numbers are known.
        architecture: for example ``"torchvision:resnet18"``; None for a module from memory.
        confidence: ``"exact"``, ``"likely"`` or ``"weights-only"``: how sure the architecture is.
        source: where it came from, as a person would say it.
        resize: the shorter side before the centre crop; by default 256/224 of the crop above 96 pixels, else the crop.
        warnings: sentences a person should read.
        guesses: what of the feeding was guessed: ``"size"`` and ``"normalisation"`` to a sentence with the reason.
        record: what training left beside the weights (epoch, accuracy, settings): plain values, one level of nesting.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)), name="tiny",
    ...               input_size=(3, 8, 8))
    >>> net.layers[0].name, predict(net, torch.zeros(2, 3, 8, 8)).shape
    ('0', torch.Size([2, 5]))
    """

    module: nn.Module
    name: str = "network"
    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Sequence[str] | None = None
    architecture: str | None = None
    confidence: str = "exact"
    source: str = "memory"
    resize: int | None = None
    warnings: tuple[str, ...] = field(default=())
    record: Mapping[str, Any] = field(default_factory=dict)
    guesses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_feeding()
        self.module = frozen(self.module, self.input_size)

    def _check_feeding(self) -> None:
        size = tuple(int(side) for side in self.input_size)
        if len(size) != 3 or min(size) < 1:
            raise SpError(f"`input_size` must be (channels, height, width), each at least 1; got {self.input_size}.")
        self.input_size = size  # type: ignore[assignment]
        for what in ("mean", "std"):
            values = getattr(self, what)
            if values is not None and len(values) != size[0]:
                raise SpError(f"`{what}` must have one number a channel ({size[0]}); got {len(values)}.")
            if values is not None and not all(math.isfinite(value) for value in values):
                raise SpError(f"`{what}` must be finite numbers; got {tuple(values)}.")
        if self.std is not None and min(self.std) <= 0:
            raise SpError(f"`std` must be above 0 in every channel; got {tuple(self.std)}.")
        if self.resize is None:
            shorter = min(size[1:])
            self.resize = round(shorter * 256 / 224) if shorter > 96 else shorter

    @cached_property
    def fingerprint(self) -> str:
        """Names the content of the weights: the same whatever file, wrapper or prefix they came in."""
        return fingerprint(dict(self.module.state_dict()))

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits that name all that an answer depends on: weights, structure, feeding, class names."""
        fed = (self.input_size, self.mean and tuple(self.mean), self.std and tuple(self.std), self.resize)
        names = self.classes and tuple(self.classes)
        known = (self.fingerprint, self.architecture, self.confidence, repr(self.module), fed, names)
        return hashlib.sha256(repr(known).encode("utf-8", "replace")).hexdigest()[:16]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with one tensor as output, in execution order.

        Raises SpError if the network cannot run, NeedsGraph if only its weights are known.
        """
        return trace_layers(self.module, self.input_size)

    @property
    def has_graph(self) -> bool:
        """Whether images can be run through it; False where only the weights are known."""
        return self.confidence != "weights-only"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @cached_property
    def class_count(self) -> int:
        """How many logits come out (0 when the output is not a vector, or nothing can be run)."""
        if not self.has_graph:
            return 0
        with torch.no_grad():
            try:
                clone = private_copy(self.module, to="meta")
                output = single(clone(torch.empty(1, *self.input_size, dtype=input_dtype(clone), device="meta")))
            except Exception:  # noqa: BLE001 - it needs real numbers, or does not take this size, which `layers` says
                assert self.layers is not None
                blank = torch.zeros(1, *self.input_size, dtype=input_dtype(self.module), device=self.device)
                output = single(self.clone()(blank))
        return output.shape[1] if output is not None and output.ndim == 2 else 0

    def fed(
        self,
        *,
        input_size: int | Sequence[int] | None = None,
        mean: float | Sequence[float] | EllipsisType | None = ...,
        std: float | Sequence[float] | EllipsisType | None = ...,
        classes: Sequence[str] | EllipsisType | None = ...,
        resize: int | EllipsisType | None = ...,
    ) -> Network:
        """The same network, module and weights, fed otherwise; what is not given stays as it is.

        Args:
            input_size: a side in pixels, ``(height, width)``, or with the channels, which the weights fix, before them.
                The shorter side before the crop then becomes the usual one for it, unless ``resize`` is given too.
            mean: of images in [0, 1]: one number for all channels or one each; None for 0.
            std: the same; None for 1.
            classes: names in index order, one an output; None for numbers.
            resize: the shorter side in pixels before the centre crop; None for the usual one.

        Raises:
            SpError: the values do not fit the network. Whether it runs at that size is found out by running it.

        >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), input_size=(3, 8, 8))
        >>> net.fed(input_size=32, mean=0.5).input_size, net.fed(mean=0.5).mean
        ((3, 32, 32), (0.5, 0.5, 0.5))
        """
        channels = self.input_size[0]
        new: dict[str, Any] = {}
        if input_size is not None:
            new |= {"input_size": _size(input_size, channels, self.name), "resize": None}
        for what, values in (("mean", mean), ("std", std)):
            if values is not ...:
                new[what] = (float(values),) * channels if isinstance(values, (int, float)) else values
        if classes is not ...:
            if classes is not None and len(classes) != self.class_count:
                raise SpError(
                    f"{len(classes)} class names were given, but {self.name} has {self.class_count:,} outputs; "
                    "give one name an output."
                )
            new["classes"] = classes and tuple(classes)
        if resize is not ...:
            least = min(new.get("input_size", self.input_size)[1:])
            if resize is not None and not 1 <= resize <= 2 * MOST_PIXELS_A_SIDE:
                raise SpError(f"`resize` is a side in pixels, such as {least}; got {resize}.")
            new["resize"] = resize
        known = {"size": "input_size" in new, "normalisation": bool({"mean", "std"} & new.keys())}
        new["guesses"] = {what: reason for what, reason in self.guesses.items() if not known.get(what)}
        gone = set(self.guesses.values()) - set(new["guesses"].values())
        new["warnings"] = tuple(warning for warning in self.warnings if warning not in gone)
        other = copy.copy(self)  # the module is shared: nobody changes it
        for name in ("identity", "layers", "class_count"):
            vars(other).pop(name, None)
        vars(other).update(new)
        other._check_feeding()
        return other

    def class_name(self, index: int) -> str:
        """The class's name, or its number where names are unknown."""
        if self.classes is not None and index < len(self.classes):
            return self.classes[index]
        return f"class {index}"

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; raises SpError naming close matches."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        import difflib

        names = [layer.name for layer in self.layers]
        close = difflib.get_close_matches(name, names, 3, 0.5) or names[:3]
        raise SpError(f"'{name}' is not one of the {len(names)} layers of {self.name}; try {', '.join(close)}.")

    def layer_with_units(self, name: str) -> Layer:
        """The layer called ``name``; raises SpError also where its channels are not its first axis."""
        layer = self.layer(name)
        if layer.channels_last:
            others = [other.name for other in self.layers if not other.channels_last]
            raise SpError(
                f"Layer {name} puts out {list(layer.output_shape)}, with its channels last, and units are looked at "
                f"where channels come first; choose another layer{f', such as {others[0]}' if others else ''}."
            )
        return layer

    def check(self, unit: Unit) -> Layer:
        """The layer of ``unit``; raises SpError when layer, channel or position does not exist."""
        layer = self.layer_with_units(unit.layer)
        if not 0 <= unit.channel < layer.channels:
            raise SpError(f"Layer {layer.name} has channels 0 to {layer.channels - 1}; got {unit.channel}.")
        if unit.position is not None:
            if not layer.is_map:
                raise SpError(f"Layer {layer.name} has no positions: its output is a vector of {layer.channels}.")
            (y, x), (_, h, w) = unit.position, layer.output_shape
            if not (0 <= y < h and 0 <= x < w):
                raise SpError(f"Layer {layer.name} has positions 0,0 to {h - 1},{w - 1}; got {y},{x}.")
        return layer

    def check_class(self, index: int) -> int:
        """``index`` if it is a class of the network; raises SpError otherwise."""
        if not 0 <= index < self.class_count:
            raise SpError(f"{self.name} has classes 0 to {self.class_count - 1}; got {index}.")
        return index

    def clone(self) -> nn.Module:
        """A private copy of the module that shares the weights, for work that must hang hooks on it."""
        return private_copy(self.module)

    def view(self, image: Image.Image) -> Tensor:
        """What the network sees of ``image``: float32 ``[c, h, w]`` in [0, 1], on the CPU."""
        return pictures.to_tensor(self.crop(image), self.input_size[0])

    def crop_box(self, image: Image.Image) -> tuple[float, float, float, float]:
        """Which part of ``image`` it sees: (left, top, right, bottom) in pixels of ``image``, with fractions."""
        return pictures.crop_box(image.size, self.resize or min(self.input_size[1:]), self.input_size[1:])

    def crop(self, image: Image.Image) -> Image.Image:
        """``image`` with its shorter side resized to ``resize``, cut to the centre ``height × width``; RGB.

        Of a picture from a file with a colour profile, the values that the file stores (``sp_core.images.as_stored``).
        """
        return pictures.resize_and_crop(image, self.resize or min(self.input_size[1:]), self.input_size[1:])

    def normalise(self, images: Tensor) -> Tensor:
        """``(images - mean) / std`` for images ``[n, c, h, w]`` in [0, 1]; differentiable."""
        if self.mean is None and self.std is None:
            return images
        shape = (1, -1, 1, 1)
        mean = torch.as_tensor(self.mean or (0.0,), dtype=images.dtype, device=images.device).view(shape)
        std = torch.as_tensor(self.std or (1.0,), dtype=images.dtype, device=images.device).view(shape)
        return (images - mean) / std

    def check_images(self, images: Tensor) -> Tensor:
        """``images`` as a batch on the network's device and in its type; raises SpError when their shape is wrong."""
        if images.ndim == 3:
            images = images[None]
        if images.ndim != 4 or images.shape[1] != self.input_size[0]:
            raise SpError(f"Images must be [n, {self.input_size[0]}, h, w] for {self.name}; got {list(images.shape)}.")
        if not images.is_floating_point():
            raise SpError(f"Images must be floating-point in [0, 1]; got {images.dtype}. Divide bytes by 255.")
        parameter = next(self.module.parameters(), None)
        dtype = parameter.dtype if parameter is not None and parameter.is_floating_point() else torch.float32
        return images.to(self.device, dtype)


def _size(asked: int | Sequence[int], channels: int, name: str) -> tuple[int, int, int]:
    """``(channels, height, width)`` from a side, a height and a width, or all three."""
    sides = (asked, asked) if isinstance(asked, int) else tuple(int(side) for side in asked)
    if len(sides) == 3 and sides[0] == channels:
        sides = sides[1:]
    if len(sides) == 3:
        raise SpError(f"{name} takes {channels} channels, which its weights fix; got {sides[0]}.")
    if len(sides) != 2 or not 1 <= min(sides) <= max(sides) <= MOST_PIXELS_A_SIDE:
        raise SpError(
            f"An input size is a height and a width from 1 to {MOST_PIXELS_A_SIDE} pixels, such as 224 or 32×64; "
            f"got {'×'.join(map(str, sides))}."
        )
    return channels, sides[0], sides[1]


def predict(net: Network, images: Tensor) -> Tensor:
    """Logits ``[n, classes]`` of images ``[n, c, h, w]`` in [0, 1].

    Raises:
        SpError: the images have the wrong shape, or the network does not end in a vector of logits.
    """
    with torch.no_grad():
        return logits(net.module, net.normalise(net.check_images(images)))


def logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """The module's output when it is one tensor; raises SpError when it is not."""
    output = single(module(inputs))
    if output is None:
        raise SpError(f"{type(module).__name__} does not return one tensor, so it has no class scores to look at.")
    return output
