"""Parametrisations: in which coordinates a picture is moved. Same minima, another path, hence another picture.

A parametrisation holds leaf tensors (``parameters``) and makes images ``[n, c, h, w]`` in [0, 1] of them
(``images()``). All end alike: latent planes, mixed into correlated colours, through a sigmoid.

* ``Pixel``: the latent planes themselves. Gradients of strided convolutions and pooling leave a checkerboard.
* ``Fourier``: their spectrum, scaled by 1/f, so that a step moves all frequencies as natural images have them
  (Olah et al. 2017, "Preconditioning").
* ``Maco``: the phases alone; the magnitudes stay those of real pictures (Fel et al. 2023, MACO, eq. 4).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sp_core.errors import SpError

Shape = tuple[int, int, int, int]  # n, c, h, w

# Lucid, optvis/param/color.py: square root of the colour covariance of ImageNet, and its mean.
_IMAGENET_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_IMAGENET_MEAN = (0.48, 0.46, 0.41)
_SD = 0.01  # of the first noise (Lucid)
_MAGIC = 4.0  # Lucid's divisor of the inverse transform, with which its learning rate 0.05 was found
_EDGE = 0.004  # pixels closer than this (1/255) to 0 or 1 have no finite latent value


@dataclass(frozen=True, eq=False)
class Colours:
    """How colours go together in a set of images.

    Attributes:
        matrix: ``[c, c]``, a square root of the covariance (``matrix @ matrix.T`` is proportional to it), scaled so
            that its largest column has length 1. Column k is where independent latent plane k leads.
        mean: ``[c]`` in [0, 1], the colour of latent zero.
    """

    matrix: Tensor
    mean: Tensor

    @classmethod
    def plain(cls, channels: int) -> Colours:
        """Independent channels about middle grey."""
        return cls(torch.eye(channels), torch.full((channels,), 0.5))

    @classmethod
    def usual(cls, channels: int) -> Colours:
        """ImageNet's for three channels, else independent ones."""
        if channels != 3:
            return cls.plain(channels)
        matrix = torch.tensor(_IMAGENET_ROOT)
        return cls(matrix / matrix.norm(dim=0).max(), torch.tensor(_IMAGENET_MEAN))

    @classmethod
    def of(cls, images: Tensor) -> Colours:
        """The statistics of the pixels of ``images [n, c, h, w]`` in [0, 1].

        Raises:
            SpError: there is no colour variation in them at all.
        """
        pixels = images.double().transpose(0, 1).flatten(1)  # [c, pixels]
        mean = pixels.mean(1)
        values, vectors = torch.linalg.eigh((pixels - mean[:, None]) @ (pixels - mean[:, None]).T / pixels.shape[1])
        root = (vectors * values.clamp(min=0).sqrt()).flip(1)  # strongest axis first
        if not root.norm(dim=0).max() > 1e-6:
            raise SpError("The example images are all of one colour, so they have no colour statistics; give others.")
        return cls((root / root.norm(dim=0).max()).float(), mean.float())

    def to_rgb(self, latent: Tensor) -> Tensor:
        """Latent planes ``[n, c, h, w]``, any range, to images in [0, 1]."""
        matrix, middle = self.matrix.to(latent), self._middle(latent)
        mixed = torch.baddbmm(middle, matrix.expand(len(latent), -1, -1), latent.flatten(2))  # one kernel, not three
        return torch.sigmoid(mixed).view_as(latent)

    def to_latent(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`to_rgb`, of images kept 1/255 away from 0 and 1."""
        mixed = torch.logit(images.clamp(_EDGE, 1 - _EDGE)).flatten(2) - self._middle(images)
        inverse = torch.linalg.pinv(self.matrix.double(), rtol=1e-4).to(images)
        return (inverse @ mixed).view_as(images)

    def _middle(self, like: Tensor) -> Tensor:
        return torch.logit(self.mean.to(like).clamp(_EDGE, 1 - _EDGE)).view(1, -1, 1)


class Parametrisation(ABC):
    """Leaf tensors (``parameters``, the first axis is the images') and the images they stand for."""

    def __init__(self, leaf: Tensor, colours: Colours) -> None:
        self.parameters: tuple[Tensor, ...] = (leaf.detach().clone().requires_grad_(),)
        self._colours = colours

    @classmethod
    @abstractmethod
    def noise(cls, shape: Shape, colours: Colours, generator: torch.Generator, magnitude: Tensor | None) -> Self:
        """The usual random start; ``magnitude`` of the spectrum is for Maco alone."""

    @classmethod
    @abstractmethod
    def of(cls, images: Tensor, colours: Colours) -> Self:
        """The parametrisation that makes ``images [n, c, h, w]`` in [0, 1]."""

    @abstractmethod
    def images(self) -> Tensor:
        """The images ``[n, c, h, w]`` in [0, 1], differentiable in the parameters."""

    def spread(self, times: int, device: torch.device) -> Self:
        """The same images ``times`` over, on ``device``."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(other, name, value.to(device))
        leaves = [p.detach().repeat(times, *[1] * (p.ndim - 1)).to(device) for p in self.parameters]
        other.parameters = tuple(leaf.requires_grad_() for leaf in leaves)
        return other


class Pixel(Parametrisation):
    """Latent planes ``[n, c, h, w]``, one number a pixel."""

    @classmethod
    def noise(cls, shape: Shape, colours: Colours, generator: torch.Generator, magnitude: Tensor | None) -> Pixel:
        """Weak white noise."""
        return cls(_SD * torch.randn(shape, generator=generator), colours)

    @classmethod
    def of(cls, images: Tensor, colours: Colours) -> Pixel:
        """The parametrisation that makes ``images``."""
        return cls(colours.to_latent(images), colours)

    def images(self) -> Tensor:
        """The images ``[n, c, h, w]`` in [0, 1]."""
        return self._colours.to_rgb(self.parameters[0])


class Fourier(Parametrisation):
    """The half spectrum of the latent planes, ``[n, c, h, w // 2 + 1, 2]`` (real, imaginary), divided by 1/f."""

    def __init__(self, spectrum: Tensor, width: int, colours: Colours) -> None:
        super().__init__(spectrum, colours)
        self._size = (spectrum.shape[2], width)
        self._scale = (
            (falloff(self._size) / _MAGIC).to(spectrum)[..., None].repeat(1, 1, 2)
        )  # not spread: half the time of a product

    @classmethod
    def noise(cls, shape: Shape, colours: Colours, generator: torch.Generator, magnitude: Tensor | None) -> Fourier:
        """Weak noise with a 1/f spectrum."""
        n, c, h, w = shape
        return cls(_SD * torch.randn((n, c, h, w // 2 + 1, 2), generator=generator), w, colours)

    @classmethod
    def of(cls, images: Tensor, colours: Colours) -> Fourier:
        """The parametrisation that makes ``images``."""
        spectrum = torch.view_as_real(torch.fft.rfft2(colours.to_latent(images), norm="ortho"))
        scale = falloff((images.shape[2], images.shape[3])) / _MAGIC
        return cls(spectrum / scale.to(spectrum)[..., None], images.shape[3], colours)

    def images(self) -> Tensor:
        """The images ``[n, c, h, w]`` in [0, 1]."""
        spectrum = torch.view_as_complex(self.parameters[0] * self._scale)
        return self._colours.to_rgb(torch.fft.irfft2(spectrum, s=self._size, norm="ortho"))


class Maco(Parametrisation):
    """The phases ``[n, c, h, w // 2 + 1]`` of the latent planes; ``magnitude [c, h, w // 2 + 1]`` is held."""

    def __init__(self, phase: Tensor, magnitude: Tensor, width: int, colours: Colours) -> None:
        super().__init__(phase, colours)
        self._magnitude = magnitude.to(phase)
        self._size = (phase.shape[2], width)

    @classmethod
    def noise(cls, shape: Shape, colours: Colours, generator: torch.Generator, magnitude: Tensor | None) -> Maco:
        """Random phases; without ``magnitude``, that of a 1/f spectrum."""
        n, c, h, w = shape
        held = natural_magnitude((c, h, w), colours, None) if magnitude is None else magnitude
        return cls(torch.rand((n, *held.shape), generator=generator) * 2 * math.pi, held, w, colours)

    @classmethod
    def of(cls, images: Tensor, colours: Colours) -> Maco:
        """The phases of ``images``, with the mean magnitude of the images themselves."""
        spectrum = torch.fft.rfft2(colours.to_latent(images), norm="ortho")
        return cls(spectrum.angle(), spectrum.abs().mean(0), images.shape[3], colours)

    def images(self) -> Tensor:
        """The images ``[n, c, h, w]`` in [0, 1]."""
        phase = self.parameters[0]
        spectrum = torch.complex(self._magnitude * phase.cos(), self._magnitude * phase.sin())
        return self._colours.to_rgb(torch.fft.irfft2(spectrum, s=self._size, norm="ortho"))


def falloff(size: tuple[int, int], decay: float = 1.0) -> Tensor:
    """``1 / f ** decay`` of each frequency of a real transform of ``size`` (h, w): ``[h, w // 2 + 1]``.

    f is in cycles a pixel, and at least one cycle a picture (Lucid, optvis/param/spatial.py).
    """
    h, w = size
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)[None])
    return frequency.clamp(min=1 / max(h, w)) ** -decay


def natural_magnitude(shape: tuple[int, int, int], colours: Colours, examples: Tensor | None) -> Tensor:
    """The mean magnitude ``[c, h, w // 2 + 1]`` of the latent spectra of ``examples [n, c, ., .]`` at size (h, w).

    Without examples: 1/f, scaled so that the strongest latent plane varies by about 1 about the mean colour.
    """
    c, h, w = shape
    if examples is None:
        magnitude = falloff((h, w))
        magnitude[0, 0] = 0
        whole = magnitude.square().sum() + magnitude[:, 1 : (w + 1) // 2].square().sum()  # with the half left out
        return (magnitude * math.sqrt(h * w) / whole.sqrt()).expand(c, -1, -1)
    scaled = F.interpolate(examples.float(), (h, w), mode="bilinear", antialias=True)
    return torch.fft.rfft2(colours.to_latent(scaled), norm="ortho").abs().mean(0)
