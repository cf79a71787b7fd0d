"""The training loop, as a generator of progress records.

The loop holds no state that is not in its state file: stopped anywhere (Ctrl-C, SIGKILL, a closed page), it goes on
from the last save and ends with the weights of the uninterrupted run. They are equal bit for bit in float32 on a CPU
with the same number of threads; in bfloat16 and on CUDA sums have no fixed order, and two runs agree as far as those
do. The images of a step follow from its number (:mod:`sp_core.training.feeds`), so data need no state at all.
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
from sp_core.checkpoints.expression import written
from sp_core.errors import SpError
from sp_core.parameterizations import asymmetry
from sp_core.training.feeds import feed
from sp_core.training.files import read_state, write_card, write_state, write_weights
from sp_core.training.measuring import measured, normalisation, outputs, statistics
from sp_core.training.recipes import Recipe

PRECISIONS = ("float32", "bfloat16")


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


class _Run:
    """A network in training and everything that changes with it: optimizer, moving average, generator."""

    def __init__(self, recipe: Recipe, device: torch.device, precision: str, data: str, compiled: bool) -> None:
        self.recipe, self.device, self.precision = recipe, device, precision
        self.feed = feed(recipe, zoo.entry(recipe.architecture).input_size[1], device, data)
        torch.manual_seed(recipe.seed)
        # Convolutions over channels-last images are faster on GPUs and on CPUs alike (measured: 1.1 to 2 times).
        net = zoo.create(recipe.architecture, **recipe.options)
        self.net = net.to(device).to(memory_format=torch.channels_last).train()
        self.averaged = zoo.create(recipe.architecture, **recipe.options).to(device)
        self.averaged.load_state_dict(self.net.state_dict())
        self.optimizer = _optimizer(self.net, recipe)
        self.mean, self.std = normalisation(recipe.architecture, self.feed, device)
        self.outputs = torch.compile(outputs) if compiled else outputs

    def update(self, step: int) -> Tensor:
        """One step of gradient descent; the batch's mean loss and its number of right answers, ``[2]``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(step)
        images, labels = self.feed(step)
        inputs = ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            exits = self.outputs(self.net, inputs)
        smoothing = self.recipe.label_smoothing
        each = [F.cross_entropy(logits.float(), labels, label_smoothing=smoothing) for logits in exits]
        loss = torch.stack(each).mean()
        if self.recipe.penalty:
            loss = loss + self.recipe.penalty * asymmetry(self.net)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)  # one odd batch early on must not undo the start
        self.optimizer.step()
        _average(self.averaged, self.net, step, self.recipe.average)
        return torch.stack([loss.detach(), (exits[-1].argmax(1) == labels).sum()])

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
    pairs = list(zip(averaged.state_dict().values(), net.state_dict().values(), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, 1 - decay)  # all at once: on a GPU a small network waits for its launches
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)  # the batch counter of batch normalisation


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
    data: str = "",
    compiled: bool = False,
) -> Iterator[Progress]:
    """Train ``recipe`` and leave ``NAME.safetensors`` and the card ``NAME.json`` in ``folder``.

    ``precision``: "bfloat16" (autocast; the default on CUDA) or "float32" (the default elsewhere). Weights, card and a
    state file are written every ``recipe.measure_every`` steps; the state file goes when training is complete. With
    ``resume`` a run starts from the state file, if there is one. ``data``: the folder of CIFAR-10, for recipes of it.
    ``compiled``: through ``torch.compile``, which pays on a GPU. Seeds torch's global generator.

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
    return _steps(recipe, Path(folder), _Run(recipe, where, precision, data, compiled), resume, report_every)


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
            card = _card(run, done, seconds)
            card["sha256"] = write_weights(folder, recipe, run.averaged)
            write_card(folder, recipe, card)
            complete = done == recipe.steps
            write_state(folder, recipe, {"step": done, "seconds": seconds, **run.state()}, complete=complete)
            progress = replace(progress, card=card)
        yield progress
        total.zero_()
        since = 0
        last = time.perf_counter()


def _card(run: _Run, step: int, seconds: float) -> dict[str, Any]:
    """The model card of the averaged network after ``step`` updates: what it is, how it was made, what it can do."""
    recipe, device, classes = run.recipe, run.device, run.feed.classes
    found = measured(run.averaged, run.feed.held_out(recipe.held_out), run.mean, run.std, len(classes))
    fed = zoo.entry(recipe.architecture)
    mean, std = statistics(recipe.architecture, run.feed)
    card: dict[str, Any] = {
        "name": recipe.name,
        "architecture": written(recipe.architecture, recipe.options),
        "about": fed.about,
        "complete": step == recipe.steps,
        "held_out_accuracy": round(found.accuracy[-1], 5),
        "held_out_loss": round(found.loss[-1], 5),
        "held_out_images": found.count,
        "held_out_per_class": {name: round(value, 4) for name, value in zip(classes, found.each, strict=True)},
        "data": run.feed.about,
        "input_size": list(fed.input_size),
        "mean": list(mean),
        "std": list(std),
        "classes": list(classes),
        "parameters": sum(p.numel() for p in run.averaged.parameters()),
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "steps": step,
        "images_seen": step * recipe.batch,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": run.precision,
        "libraries": {"python": platform.python_version(), "torch": torch.__version__},
    }
    if len(found.accuracy) > 1:
        card["exits"] = [
            {"accuracy": round(a, 5), "loss": round(b, 5)} for a, b in zip(found.accuracy, found.loss, strict=True)
        ]
    return card
