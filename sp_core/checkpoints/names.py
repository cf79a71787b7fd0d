"""The names in a checkpoint: which dictionary holds the weights, and which prefixes are only wrapping.

Training programs wrap a state dict in another dictionary (``{"state_dict": …, "epoch": 90}``) and its names in prefixes
(``module.`` by DataParallel, ``_orig_mod.`` by torch.compile, ``model.`` by Lightning). Pure functions on dictionaries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

# In order of preference: averaged weights are what was evaluated (timm and torchvision both report those).
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net_state_dict",
    "weights",
    "params",
    "model",
    "net",
    "network",
    "module",
    "backbone",
    "encoder",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", "base_model.", "_model.")
# What profilers and quantisers leave behind in a state dict.
LEFTOVERS = (".total_ops", ".total_params", "total_ops", "total_params")
_MAX_DEPTH = 4
_MAX_RECORD = 40
# torchvision's DenseNet files still carry the names of before 2017; torchvision renames them too.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


def find_state(content: Any, depth: int = 0) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """The dictionary of named tensors inside ``content`` and the path of keys to it; None where there is none.

    >>> import torch
    >>> state, path = find_state({"epoch": 3, "state_dict": {"conv.weight": torch.zeros(1)}})
    >>> list(state), path
    (['conv.weight'], ('state_dict',))
    """
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return None
    for key in WRAPPERS:
        found = find_state(content.get(key), depth + 1)
        if found is not None and len(found[0]) > 1:
            return found[0], (key, *found[1])
    own = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if own and any(value.ndim > 0 for value in own.values()):
        return own, ()
    # Unknown wrapping: the part with the most tensors, never the optimiser's, whose keys are numbers.
    best: tuple[dict[str, Tensor], tuple[str, ...]] | None = None
    for key, value in content.items():
        if isinstance(key, str) and "optim" not in key.lower():
            found = find_state(value, depth + 1)
            if found is not None and (best is None or len(found[0]) > len(best[0])):
                best = found[0], (key, *found[1])
    return best


def record(content: Any) -> dict[str, Any]:
    """The small facts that training left beside the weights: numbers and short texts, one level of nesting.

    Of an optimiser's state, only the settings of its first group of parameters (rate, momentum, weight decay).
    """
    facts = _facts(content, 0)
    for key, value in content.items() if isinstance(content, Mapping) else ():
        groups = value.get("param_groups") if isinstance(value, Mapping) else None
        if isinstance(key, str) and len(key) <= 80 and isinstance(groups, list) and groups and len(facts) < _MAX_RECORD:
            settings = _facts(groups[0], 1)
            if settings:
                facts[key] = settings
    return facts


def _facts(content: Any, depth: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not isinstance(content, Mapping):
        return facts
    for key, value in content.items():
        if len(facts) >= _MAX_RECORD or not isinstance(key, str) or len(key) > 80:
            continue
        if isinstance(value, (bool, int, float)) or value is None or (isinstance(value, str) and len(value) <= 200):
            facts[key] = value
        elif isinstance(value, Tensor) and depth == 0 and value.numel() == 1 and value.dim() == 0:
            number = float(value)
            facts[key] = number if math.isfinite(number) else str(number)
        elif isinstance(value, Mapping) and depth == 0 and key not in WRAPPERS and "optim" not in key:
            nested = _facts(value, 1)
            if nested:
                facts[key] = nested
    return facts


def tidy(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove wrapping inside names and leftovers of tools; returns the notes on what was left out.

    ``features.module.0.weight`` (DataParallel on a part) becomes ``features.0.weight``.
    """
    notes = []
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(LEFTOVERS)}
    if len(kept) < len(tensors):
        notes.append(f"{len(tensors) - len(kept)} counters of a profiler (total_ops, total_params) were left out.")
    renamed = {_without_wrapping(name): tensor for name, tensor in kept.items()}
    return (renamed if len(renamed) == len(kept) else kept), notes


def _without_wrapping(name: str) -> str:
    parts = [part for part in name.split(".") if part not in {"module", "_orig_mod"}]
    name = ".".join(parts)
    old = _OLD_DENSENET.match(name)
    return old.group(1) + old.group(2) if old else name


def variants(tensors: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], str]]:
    """The tensors under the names they may have had before wrapping, likeliest first, each with a note or "".

    First as they are; then without each prefix that all names share; then, where only most names share one, without it
    (a backbone beside its head), and with the others left out (a metric or a loss beside the network).
    """
    current = dict(tensors)
    yield current, ""
    for _ in range(4):
        shared = [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in current)]
        if not shared:
            break
        current = {name.removeprefix(shared[0]): tensor for name, tensor in current.items()}
        yield current, ""
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): tensor for name, tensor in current.items() if name.startswith(prefix)}
        if len(current) // 2 < len(inside) < len(current):
            outside = {name: tensor for name, tensor in current.items() if not name.startswith(prefix)}
            if not outside.keys() & inside.keys():
                yield inside | outside, ""
            first = ", ".join(sorted(outside)[:3])
            yield inside, f"{len(outside)} tensors outside '{prefix}' were left out ({first})."


def bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that all their names share.

    >>> import torch
    >>> list(bare({"model.net.conv.weight": torch.zeros(1), "model.net.fc.weight": torch.zeros(1)}))
    ['conv.weight', 'fc.weight']
    """
    current = dict(tensors)
    while shared := [prefix for prefix in PREFIXES if current and all(name.startswith(prefix) for name in current)]:
        current = {name.removeprefix(shared[0]): tensor for name, tensor in current.items()}
    return current
