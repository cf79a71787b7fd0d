"""The training loop, as a generator of progress records.

The loop holds no state that is not in its state file: stopped anywhere (Ctrl-C, SIGKILL, a closed page), it goes on
from the last save and ends with the weights of the uninterrupted run. They are equal bit for bit in float32 on a CPU
with the same number of threads; in bfloat16 and on CUDA sums have no fixed order, and two runs agree as far as those
do. The images of step ``k`` are textures ``k · batch`` … ``(k + 1) · batch - 1`` of the recipe's data seed, so data
need no state at all.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sp_core import zoo
from sp_core.datasets.textures import Textures, render
from sp_core.errors import SpError
from sp_core.training.files import read_state, write_card, write_state, write_weights
from sp_core.training.recipes import Recipe

PRECISIONS = ("float32", "bfloat16")
_RENDER_AT_ONCE = 2_048  # textures drawn ahead: few large draws cost less than many small ones


@dataclass(frozen=True)
class Progress:
    """Where training stands after ``step`` of ``steps`` updates.

    ``loss`` (cross-entropy, nats) and ``accuracy`` (0 … 1) are of the training batches since the last record;
    ``images_per_second`` likewise. ``card`` is the model card when this step was measured and saved, else ``None``.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    images_per_second: float
    card: dict[str, Any] | None = None


class _Feed:
    """Training batches by step number, drawn ahead in blocks on ``device``."""

    def __init__(self, recipe: Recipe, size: int, device: torch.device) -> None:
        self.recipe, self.size, self.device = recipe, size, device
        self.block = min(max(1, _RENDER_AT_ONCE // recipe.batch), recipe.steps)  # steps in a block
        self.first = -1
        self.images, self.labels = torch.empty(0), torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images of one update, uint8 ``[batch, 3, size, size]``, and labels int64 ``[batch]``."""
        batch = self.recipe.batch
        first = step - step % self.block
        if first != self.first:
            data = Textures(
                self.block * batch, seed=self.recipe.data_seed, size=self.size, device=self.device, offset=first * batch
            )
            indices = torch.arange(first * batch, (first + self.block) * batch)
            self.images = render(indices, seed=self.recipe.data_seed, size=self.size, device=self.device)
            self.labels = data.parameters(torch.arange(len(data)))["label"].to(self.device)
            self.first = first
        rows = slice((step - first) * batch, (step - first + 1) * batch)
        return self.images[rows], self.labels[rows]


class _Run:
    """A network in training and everything that changes with it: optimizer, moving average, generator."""

    def __init__(self, recipe: Recipe, device: torch.device, precision: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.precision = recipe, device, precision
        # Convolutions over channels-last images are faster on GPUs and on CPUs alike (measured: 1.1 to 2 times).
        self.net = zoo.create(recipe.architecture).to(device).to(memory_format=torch.channels_last).train()
        self.averaged = zoo.create(recipe.architecture).to(device)
        self.averaged.load_state_dict(self.net.state_dict())
        self.optimizer = _optimizer(self.net, recipe)
        self.mean, self.std = _normalisation(recipe.architecture, device)
        self.feed = _Feed(recipe, zoo.entry(recipe.architecture).input_size[1], device)

    def update(self, step: int) -> Tensor:
        """One step of gradient descent; the batch's mean loss and its number of right answers, ``[2]``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(step)
        images, labels = self.feed(step)
        inputs = ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.net(inputs)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)  # one odd batch early on must not undo the start
        self.optimizer.step()
        _average(self.averaged, self.net, step, self.recipe.average)
        return torch.stack([loss.detach(), (logits.argmax(1) == labels).sum()])

    def state(self) -> dict[str, Any]:
        """Everything :meth:`go_on_from` needs, as tensors and plain values."""
        return {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Become what :meth:`state` described."""
        self.net.load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generator"])
        if self.device.type == "cuda" and state["cuda_generator"] is not None:
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Stochastic gradient descent with Nesterov momentum; matrices decay, biases and batch normalisation do not."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    groups = [
        {"params": matrices[:1], "weight_decay": recipe.first_weight_decay},
        {"params": matrices[1:], "weight_decay": recipe.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


@torch.no_grad()
def _average(averaged: nn.Module, net: nn.Module, step: int, decay: float) -> None:
    """Move the running average of all weights and batch statistics a little towards the network."""
    decay = min(decay, (1 + step) / (10 + step))  # a young average forgets its random start sooner
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)  # the batch counter of batch normalisation


@torch.no_grad()
def measure(net: nn.Module, architecture: str, *, seed: int, count: int, offset: int = 0) -> tuple[float, list[float]]:
    """Accuracy on ``count`` textures of ``seed``, in all and class by class, each 0 … 1 (NaN for a class not drawn).

    ``net`` takes normalised images, in float32 on the device of its weights; its mode is put back afterwards.

    >>> total, each = measure(zoo.create("textures-vgg"), "textures-vgg", seed=0, count=36)
    >>> 0 <= total <= 1, len(each)
    (True, 18)
    """
    fed = zoo.entry(architecture)
    device = next(net.parameters()).device
    mean, std = _normalisation(architecture, device)
    data = Textures(count, seed=seed, size=fed.input_size[1], device=device, offset=offset)
    was_training = net.training
    net.eval()
    right = torch.zeros(len(data.classes), dtype=torch.int64)
    seen = torch.zeros_like(right)
    try:
        for start in range(0, count, 256):
            images, labels = data.batch(start, min(start + 256, count))
            hit = net((images - mean) / std).argmax(1) == labels
            seen += torch.bincount(labels.cpu(), minlength=len(seen))
            right += torch.bincount(labels[hit].cpu(), minlength=len(seen))
    finally:
        net.train(was_training)
    return float(right.sum() / seen.sum()), (right / seen).tolist()


def _normalisation(architecture: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the zoo's entry, ``[3, 1, 1]`` each."""
    fed = zoo.entry(architecture)
    return (
        torch.tensor(fed.mean, device=device)[:, None, None],
        torch.tensor(fed.std, device=device)[:, None, None],
    )


def _device(name: str) -> torch.device:
    """The device called ``name``, or a sentence that says why not."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpError(f"device must be 'cpu' or 'cuda', got '{name}'; leave it out to use what is there") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpError(f"device '{name}' needs a CUDA GPU and torch sees none; use --device cpu")
    return device


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: str = "cpu",
    precision: str | None = None,
    resume: bool = False,
    report_every: int = 50,
) -> Iterator[Progress]:
    """Train ``recipe`` and leave ``NAME.safetensors`` and the card ``NAME.json`` in ``folder``.

    ``precision``: "bfloat16" (autocast; the default on CUDA) or "float32" (the default elsewhere). Weights, card and a
    state file are written every ``recipe.measure_every`` steps; the state file goes when training is complete. With
    ``resume`` a run starts from the state file, if there is one. Seeds torch's global generator.

    >>> short = replace(RECIPES["textures-vgg"], steps=2, batch=2, held_out=18)     # doctest: +SKIP
    >>> [p.step for p in train(short, "runs")]                                      # doctest: +SKIP
    [2]
    """
    where = _device(device)
    precision = precision or ("bfloat16" if where.type == "cuda" else "float32")
    if precision not in PRECISIONS:
        raise SpError(
            f"precision must be one of {', '.join(PRECISIONS)}, got '{precision}'; leave it out for the usual one"
        )
    if recipe.steps < 1:
        raise SpError(f"steps must be at least 1, got {recipe.steps}; give the number of updates")
    return _steps(recipe, Path(folder), _Run(recipe, where, precision), resume, report_every)


def _steps(recipe: Recipe, folder: Path, run: _Run, resume: bool, report_every: int) -> Iterator[Progress]:
    """The loop itself; see :func:`train`."""
    state = read_state(folder, recipe) if resume else None
    if state is not None:
        run.go_on_from(state)
    start, earlier = (0, 0.0) if state is None else (state["step"], state["seconds"])
    began = last = time.perf_counter()
    total = torch.zeros(2, device=run.device)  # loss and hits since the last record
    since = 0
    for step in range(start, recipe.steps):
        total += run.update(step)
        since += 1
        done = step + 1
        save = done % recipe.measure_every == 0 or done == recipe.steps
        if not save and done % report_every:
            continue
        loss, hits = total.tolist()
        progress = Progress(
            step=done,
            steps=recipe.steps,
            loss=loss / since,
            accuracy=hits / (since * recipe.batch),
            learning_rate=recipe.rate(step),
            images_per_second=since * recipe.batch / (time.perf_counter() - last),
        )
        if save:
            seconds = earlier + time.perf_counter() - began
            card = _card(recipe, run.averaged, done, run.device, run.precision, seconds)
            card["sha256"] = write_weights(folder, recipe, run.averaged)
            write_card(folder, recipe, card)
            complete = done == recipe.steps
            write_state(folder, recipe, {"step": done, "seconds": seconds, **run.state()}, complete=complete)
            progress = replace(progress, card=card)
        yield progress
        total.zero_()
        since = 0
        last = time.perf_counter()


def _card(
    recipe: Recipe, net: nn.Module, step: int, device: torch.device, precision: str, seconds: float
) -> dict[str, Any]:
    """The model card of ``net`` after ``step`` updates: what it is, how it was made, what it can do."""
    total, each = measure(net, recipe.architecture, seed=recipe.held_out_seed, count=recipe.held_out)
    fed = zoo.entry(recipe.architecture)
    return {
        "name": recipe.name,
        "architecture": recipe.architecture,
        "about": fed.about,
        "complete": step == recipe.steps,
        "held_out_accuracy": round(total, 5),
        "held_out_images": recipe.held_out,
        "held_out_per_class": {name: round(value, 4) for name, value in zip(Textures.classes, each, strict=True)},
        "data": "procedural textures (sp_core.datasets.textures); held-out images come from another seed",
        "input_size": list(fed.input_size),
        "mean": list(fed.mean),
        "std": list(fed.std),
        "classes": list(fed.classes),
        "parameters": sum(p.numel() for p in net.parameters()),
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "steps": step,
        "images_seen": step * recipe.batch,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "libraries": {"python": platform.python_version(), "torch": torch.__version__},
    }
