"""What a network in training can do: right answers and loss on images that training never saw, at every exit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core import zoo
from sp_core.training.feeds import Feed, TextureFeed, textures


def outputs(net: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Logits ``[n, classes]`` of every exit of ``net``, the last one last; one of a network that has no others."""
    every = getattr(net, "every_exit", None)
    return [net(inputs)] if every is None else every(inputs)


@dataclass(frozen=True)
class Measured:
    """Right answers on images that training never saw: ``accuracy`` (0 … 1) and ``loss`` (cross-entropy, nats) of each
    exit, the last one last, and the last exit's accuracy class by class (NaN for a class not drawn).
    """

    accuracy: list[float]
    loss: list[float]
    each: list[float]
    count: int


@torch.no_grad()
def measured(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor, classes: int
) -> Measured:
    """What ``net`` answers to ``batches`` of images in [0, 1] with labels; its mode is put back afterwards."""
    was_training = net.training
    net.eval()
    seen = torch.zeros(classes, dtype=torch.int64)
    right, lost = [], []
    try:
        for images, labels in batches:
            exits = outputs(net, (images - mean) / std)
            seen += torch.bincount(labels.cpu(), minlength=classes)
            right.append(
                torch.stack([torch.bincount(labels[e.argmax(1) == labels].cpu(), minlength=classes) for e in exits])
            )
            lost.append(torch.stack([F.cross_entropy(e.float(), labels, reduction="sum").cpu() for e in exits]))
    finally:
        net.train(was_training)
    hits, count = torch.stack(right).sum(0), int(seen.sum())
    return Measured(
        accuracy=(hits.sum(1) / count).tolist(),
        loss=(torch.stack(lost).sum(0) / count).tolist(),
        each=(hits[-1] / seen).tolist(),
        count=count,
    )


def measure(net: nn.Module, architecture: str, *, seed: int, count: int, offset: int = 0) -> tuple[float, list[float]]:
    """Accuracy on ``count`` textures of ``seed``, in all and class by class, each 0 … 1 (NaN for a class not drawn).

    ``net`` takes normalised images, in float32 on the device of its weights; its mode is put back afterwards.

    >>> total, each = measure(zoo.create("textures-vgg"), "textures-vgg", seed=0, count=36)
    >>> 0 <= total <= 1, len(each)
    (True, 18)
    """
    fed = zoo.entry(architecture)
    device = next(net.parameters()).device
    mean, std = normalisation(architecture, TextureFeed, device)
    batches = textures(seed, count, fed.input_size[1], device, offset)
    answer = measured(net, batches, mean, std, len(TextureFeed.classes))
    return answer.accuracy[-1], answer.each


def statistics(architecture: str, data: Feed | type[TextureFeed]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the zoo's entry names; those of the data where it names none."""
    fed = zoo.entry(architecture)
    return (fed.mean, fed.std) if fed.mean else (data.mean, data.std)


def normalisation(architecture: str, data: Feed | type[TextureFeed], device: torch.device) -> tuple[Tensor, Tensor]:
    """:func:`statistics` as tensors ``[3, 1, 1]``."""
    mean, std = statistics(architecture, data)
    return torch.tensor(mean, device=device)[:, None, None], torch.tensor(std, device=device)[:, None, None]
