"""What a network is, in one dictionary of plain values: what ``describe`` prints and the identity card shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from torch import Tensor, nn

from sp_core.counts import Complexity, complexity
from sp_core.errors import SpError
from sp_core.health import Finding, health, summary
from sp_core.network import Network
from sp_core.receptive_field import ReceptiveField, receptive_fields
from sp_core.trace import Layer

T = TypeVar("T")


def describe(net: Network) -> dict[str, Any]:
    """Name, architecture, counts, preprocessing and layers of ``net``, ready for JSON.

    Keys: ``name``, ``architecture`` (None when unknown), ``confidence`` (``"exact"``, ``"likely"``,
    ``"weights-only"``), ``source``, ``fingerprint``, ``parameters``, ``macs`` (multiply-accumulates of one image),
    ``input`` (``channels``, ``height``, ``width``, ``mean``, ``std``, the last two None where images are fed as they
    are, and ``resize``, the shorter side in pixels before the crop), ``guesses`` (what of that is guessed: ``"size"``,
    ``"normalisation"`` to the reason), ``classes`` (a count), ``tensors`` (a count), ``bytes`` and ``dtype`` (of the
    tensors in memory), ``training`` (what it left beside the weights: plain values, one level of nesting), ``health``
    (what is odd about the weights: ``where``, ``kind``, ``text``), ``warnings`` (sentences) and ``layers``: in
    execution order ``name``, ``kind``, ``weight`` (its shape, None without one), ``output`` (``[c, h, w]`` or
    ``[n]``), ``parameters``, ``macs`` and ``receptive_field`` (``size``, ``stride``, ``start``, each a number or
    ``[y, x]``, and ``status``). Where a number cannot be had it is None, and a warning says why. Of a network of which
    only the weights are known, ``layers`` are those that hold parameters, in the order of the file, without outputs.

    >>> from sp_core.checkpoints import load
    >>> card = describe(load("zoo:textures-vgg", device="cpu"))
    >>> card["classes"], card["layers"][0]["output"], card["layers"][0]["receptive_field"]["size"]
    (18, [32, 64, 64], 3)
    """
    warnings = list(net.warnings)
    if net.has_graph:
        counts = _try(lambda: complexity(net), "counts", warnings)
        fields = _try(lambda: receptive_fields(net), "receptive fields", warnings) or {}
        layers = [_row(net, layer, counts, fields.get(layer.name)) for layer in net.layers]
    else:  # one warning says so; what needs a forward pass is None below
        counts, layers = None, _loose_rows(net)
    if counts is not None and counts.status != "complete":
        warnings.append(f"The counts are {counts.status}.")
    channels, height, width = net.input_size
    state = net.module.state_dict()
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()})
    return {
        "name": net.name,
        "architecture": net.architecture,
        "confidence": net.confidence,
        "source": net.source,
        "fingerprint": net.fingerprint,
        "parameters": sum(parameter.numel() for parameter in net.module.parameters()),
        "macs": counts.macs if counts is not None else None,
        "input": {
            "channels": channels,
            "height": height,
            "width": width,
            "mean": list(net.mean) if net.mean is not None else None,
            "std": list(net.std) if net.std is not None else None,
            "resize": net.resize,
        },
        "guesses": dict(net.guesses),
        "classes": net.class_count,
        "tensors": len(state),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
        "dtype": ", ".join(kinds) or "none",
        "training": _values(net.record),
        "health": [asdict(finding) for finding in health(net)],
        "warnings": warnings,
        "layers": layers,
    }


def _row(net: Network, layer: Layer, counts: Complexity | None, seen: ReceptiveField | None) -> dict[str, Any]:
    own = counts.per_layer.get(layer.name) if counts is not None else None
    return {
        "name": layer.name,
        "kind": layer.kind,
        "weight": _weight(net.module.get_submodule(layer.module)),
        "output": list(layer.output_shape),
        "parameters": own.parameters if own is not None else None,
        "macs": own.macs if own is not None else None,
        "receptive_field": _field(seen),
    }


def _loose_rows(net: Network) -> list[dict[str, Any]]:
    rows = []
    for name, part in net.module.named_modules():
        own = sum(parameter.numel() for parameter in part.parameters(recurse=False))
        if own:
            kind = "tensors" if type(part) is nn.Module or not name else type(part).__name__
            row = {"name": name, "kind": kind, "weight": _weight(part), "output": None, "parameters": own, "macs": None}
            rows.append(row | {"receptive_field": _field(None)})
    return rows


def _weight(part: nn.Module) -> list[int] | None:
    weight = getattr(part, "weight", None)
    return list(weight.shape) if isinstance(weight, Tensor) else None


def _field(seen: ReceptiveField | None) -> dict[str, Any]:
    if seen is None:
        return {"size": None, "stride": None, "start": None, "status": "unavailable"}
    return {
        "size": _plain(seen.size),
        "stride": _plain(seen.stride),
        "start": _plain(seen.start),
        "status": seen.status,
    }


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Only what JSON and a terminal take: numbers that are not finite become words, other objects their type's name."""
    plain: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            plain[str(key)] = _values(value)
        elif value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            plain[str(key)] = value
        else:
            word = str(value)[:200] if isinstance(value, (str, float)) else type(value).__name__
            plain[str(key)] = "".join(letter if letter.isprintable() else " " for letter in word)
    return plain


def _plain(extent: Any) -> Any:
    """A number for both axes, or ``[y, x]`` where they differ."""
    if isinstance(extent, tuple):
        return extent[0] if extent[0] == extent[1] else list(extent)
    return extent


def _try(question: Callable[[], T], what: str, warnings: list[str]) -> T | None:
    """The answer, or None with a warning: one number that cannot be had must not hide all others."""
    try:
        return question()
    except SpError as error:
        warnings.append(f"No {what}: {error}")
        return None


def as_text(card: dict[str, Any]) -> str:
    """The card as lines for a terminal.

    >>> as_text({"name": "n", "architecture": None, "confidence": "exact", "source": "memory", "fingerprint": "0",
    ...          "parameters": 1200, "macs": None, "input": {"channels": 1, "height": 2, "width": 2, "mean": None,
    ...          "std": None}, "classes": 0, "training": {}, "health": [],
    ...          "warnings": [], "layers": []}).splitlines()[0]
    'n: unknown architecture (exact), from memory'
    """
    size = card["input"]
    macs = f"{card['macs']:,}" if card["macs"] is not None else "unknown"
    known = f"{card['architecture'] or 'unknown architecture'} ({card['confidence']})"
    lines = [
        f"{card['name']}: {known}, from {card['source']}",
        f"fingerprint {card['fingerprint']}, {card['parameters']:,} parameters, {macs} multiply-accumulates an image",
    ]
    if card["confidence"] != "weights-only":
        fed = f"input {size['channels']}×{size['height']}×{size['width']}, {_normalisation(size)}"
        lines.append(f"{fed}; {card['classes']} classes")
    facts = [f"{key} {value}" for key, value in card["training"].items() if not isinstance(value, dict)]
    facts = [fact for fact in facts if len(fact) <= 60]
    if facts:
        lines.append(f"training: {', '.join(facts[:8])}{', …' if len(facts) > 8 else ''}")
    lines += [f"weights: {text}" for _, text in summary(Finding(**finding) for finding in card["health"])]
    lines += [f"note: {warning}" for warning in card["warnings"]]
    if card["layers"]:
        lines += ["", f"{'layer':32} {'kind':20} {'output':>14} {'parameters':>12} {'macs':>14}  receptive field"]
        lines += [_line(layer) for layer in card["layers"]]
    return "\n".join(lines)


def _normalisation(size: dict[str, Any]) -> str:
    if size["mean"] is None and size["std"] is None:
        return "values in [0, 1] as they are"
    return f"mean {size['mean']}, std {size['std']}"


def _line(layer: dict[str, Any]) -> str:
    seen = layer["receptive_field"]
    numbers = [f"{value:,}" if value is not None else "-" for value in (layer["parameters"], layer["macs"])]
    field = f"{seen['size']} / {seen['stride']}" if seen["size"] is not None else "-"
    note = "" if seen["status"] == "complete" else f" ({seen['status']})"
    output = "×".join(map(str, layer["output"] or "-"))
    return f"{layer['name']:32} {layer['kind']:20} {output:>14} {numbers[0]:>12} {numbers[1]:>14}  {field}{note}"
