"""The names in a checkpoint: which dictionary holds the weights, and which prefixes are only wrapping.

Training programs wrap a state dict in another dictionary (``{"state_dict": …, "epoch": 90}``) and its names in prefixes
(``module.`` by DataParallel, ``_orig_mod.`` by torch.compile, ``model.`` by Lightning). Pure functions on dictionaries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from sp_core.checkpoints.inert import Made
from sp_core.checkpoints.stored import Stored

# In order of preference: averaged weights are what was evaluated (timm and torchvision both report those).
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "ema_model",
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
# Parts that wrappers put into names: DataParallel, torch.compile, FSDP, activation checkpointing, Lightning Fabric.
WRAPPING = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_ddp_module",
}  # fmt: skip
# What tools leave behind in a state dict: the end of a name, and what it is.
_LEFTOVERS = (
    (re.compile(r"(^|\.)total_(ops|params)$"), "counters of a profiler"),
    (re.compile(r"^n_averaged$"), "counters of averaging"),
    (
        re.compile(
            r"(^|\.)(activation_post_process|weight_fake_quant|bias_fake_quant)\."
            r"|(^|\.)(fake_quant_enabled|observer_enabled|activation_threshold|final_scale|output_shift|weight_bits"
            r"|bias_bits|quantize_activation|adjust_output_shift|shift_quantile)$"
        ),
        "settings of quantisation-aware training",
    ),
)
# Averaged weights beside the ones in training, told apart by a prefix.
_AVERAGED = (("ema_model.", "online_model."), ("ema_model.", "model."), ("model_ema.", "model."), ("ema.", "model."))
_MAX_DEPTH = 4
_MAX_RECORD = 40
_MAX_LOOKED_AT = 1000  # keys of a dictionary of facts
_MAX_LISTED = 50  # state dicts in a list
_MAX_NAME = 300
_NO_FACT = object()
# torchvision's DenseNet files still carry the names of before 2017; torchvision renames them too.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


Named: TypeAlias = Tensor | Stored  # a tensor in memory, or one that is still in the file
T = TypeVar("T", Tensor, Stored)


def find_state(
    content: Any, depth: int = 0, seen: dict[tuple[int, int], Any] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The dictionary of named tensors inside ``content`` and the path of keys to it; None where there is none.

    >>> import torch
    >>> state, path = find_state({"epoch": 3, "state_dict": {"conv.weight": torch.zeros(1)}})
    >>> list(state), path
    (['conv.weight'], ('state_dict',))
    """
    seen = {} if seen is None else seen
    if depth > _MAX_DEPTH or not isinstance(content, (Mapping, list, tuple)):
        return None
    if (id(content), depth) not in seen:  # a file can let one dictionary stand in a thousand places
        seen[id(content), depth] = None
        seen[id(content), depth] = _find_state(content, depth, seen)
    return seen[id(content), depth]


def _find_state(content: Any, depth: int, seen: dict[tuple[int, int], Any]) -> Any:
    if not isinstance(content, Mapping):  # a list of state dicts: of several networks, or of one and its optimiser
        content = {f"[{place}]": value for place, value in enumerate(content[:_MAX_LISTED])}
    else:
        for key in WRAPPERS:
            found = find_state(content.get(key), depth + 1, seen)
            if found is not None and len(found[0]) > 1:
                return found[0], (key, *found[1])
        own = _own(content)
        if own and any(value.ndim > 0 for value in own.values()):
            return own, ()
    # Unknown wrapping: the part with the most tensors, never the optimiser's, whose keys are numbers.
    best: tuple[dict[str, Any], tuple[str, ...]] | None = None
    for key, value in content.items():
        if isinstance(key, str) and "optim" not in key.lower():
            found = find_state(value, depth + 1, seen)
            if found is not None and (best is None or len(found[0]) > len(best[0])):
                best = found[0], (key, *found[1])
    return best


def _own(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors of one dictionary by their names, those of quantised layers unpacked."""
    own: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, (Tensor, Stored)):
            own[key] = value
        elif isinstance(value, tuple) and key.endswith("_packed_params") and 0 < len(value) <= 2:
            layer = key.removesuffix("_packed_params").removesuffix("_packed_params.")
            parts = zip(("weight", "bias"), value, strict=False)
            own |= {layer + part: tensor for part, tensor in parts if isinstance(tensor, (Tensor, Stored))}
    return own


def others(content: Any, path: tuple[str, ...]) -> list[str]:
    """Keys of ``content`` beside the first of ``path`` that hold networks of their own.

    >>> import torch
    >>> weights = {"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}
    >>> others({"generator": weights, "critic": weights, "epoch": 3}, ("generator",))
    ['critic']
    """
    if not path or not isinstance(content, Mapping):
        return []
    seen: dict[tuple[int, int], Any] = {}
    keys = [key for key in list(content)[:1000] if isinstance(key, str) and "optim" not in key.lower()]
    found = ((key, find_state(content[key], 1, seen)) for key in keys if key != path[0])
    return [clean(key) for key, state in found if state is not None and len(state[0]) > 1]


def clean(name: str) -> str:
    """A name that can be shown, encoded and compared: no control characters, no halves of characters, not endless.

    >>> clean("conv.weight"), clean("a\\x00b\\ud800")
    ('conv.weight', 'a?b?')
    """
    if len(name) <= _MAX_NAME and name.isascii() and name.isprintable():
        return name
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:_MAX_NAME])
    return shown if len(name) <= _MAX_NAME else shown + "…"


def record(content: Any) -> dict[str, Any]:
    """The small facts that training left beside the weights: numbers and short texts, one level of nesting.

    Of an optimiser's state, only the settings of its first group of parameters (rate, momentum, weight decay).
    """
    facts = _facts(content, 0)
    for key, value in islice(content.items(), _MAX_LOOKED_AT) if isinstance(content, Mapping) else ():
        groups = value.get("param_groups") if isinstance(value, Mapping) else None
        if isinstance(key, str) and len(key) <= 80 and isinstance(groups, list) and groups and len(facts) < _MAX_RECORD:
            settings = _facts(groups[0], 1)
            if settings:
                facts[clean(key)] = settings
    return facts


def _facts(content: Any, depth: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not isinstance(content, Mapping):
        return facts
    for key, value in islice(content.items(), _MAX_LOOKED_AT):
        if len(facts) >= _MAX_RECORD or not isinstance(key, str) or len(key) > 80:
            continue
        if isinstance(value, Made):  # an argparse.Namespace
            value = value.state
        if isinstance(value, Mapping):
            nested = _facts(value, 1) if depth == 0 and key not in WRAPPERS and "optim" not in key else {}
            if nested:
                facts[clean(key)] = nested
        elif (fact := _fact(value, depth)) is not _NO_FACT:
            facts[clean(key)] = fact
    return facts


def _fact(value: Any, depth: int) -> Any:
    """A number, a short text or a one-number tensor, as can be shown and written as JSON."""
    if isinstance(value, (Tensor, Stored)) and depth == 0 and value.numel() == 1 and value.ndim == 0:
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if len(value) <= 200 else _NO_FACT  # no halves of characters
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return _NO_FACT


def tidy(tensors: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """Remove wrapping inside names and leftovers of tools; returns the notes on what was left out.

    ``features.module.0.weight`` (DataParallel on a part) becomes ``features.0.weight``.
    """
    notes = []
    kept = dict(tensors)
    if any(getattr(tensor, "quantised", None) is not None for tensor in kept.values()):
        # Each quantised layer says how its outputs are rounded; that is no weight.
        scales = [name for name in kept if name.endswith((".scale", ".zero_point")) and kept[name].numel() == 1]
        kept = {name: tensor for name, tensor in kept.items() if name not in set(scales)}
        if scales:
            notes.append(f"{len(scales)} scales of quantised outputs were left out.")
    for pattern, what in _LEFTOVERS:
        found = [name for name in kept if pattern.search(name)]
        if found and len(found) < len(kept):
            kept = {name: tensor for name, tensor in kept.items() if not pattern.search(name)}
            notes.append(f"{len(found)} {what} were left out ({clean(found[0])}{', …' * (len(found) > 1)}).")
    for averaged, plain in _AVERAGED:
        inside = {name.removeprefix(averaged): tensor for name, tensor in kept.items() if name.startswith(averaged)}
        if len(inside) > 1 and inside.keys() <= {name.removeprefix(plain) for name in kept if name.startswith(plain)}:
            notes.append(
                f"These are the averaged weights ('{averaged}…'); the {len(kept) - len(inside)} others were left out."
            )
            kept = inside
            break
    renamed = {clean(_without_wrapping(name)): tensor for name, tensor in kept.items()}
    if len(renamed) < len(kept):
        renamed = {clean(name): tensor for name, tensor in kept.items()}
    if len(renamed) < len(kept):
        renamed = {f"{place}.{clean(name)}": tensor for place, (name, tensor) in enumerate(kept.items())}
    return renamed, notes


def _without_wrapping(name: str) -> str:
    parts = [part for part in name.split(".") if part not in WRAPPING]
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
