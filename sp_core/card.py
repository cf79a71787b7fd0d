"""What a network is, in one dictionary of plain values: what ``describe`` prints and the start page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sp_core.counts import Complexity, complexity
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.receptive_field import ReceptiveField, receptive_fields
from sp_core.trace import Layer

T = TypeVar("T")


def describe(net: Network) -> dict[str, Any]:
    """Name, architecture, counts, preprocessing and layers of ``net``, ready for JSON.

    Keys: ``name``, ``architecture`` (None when unknown), ``confidence`` (``"exact"``, ``"likely"``,
    ``"weights-only"``), ``source``, ``fingerprint``, ``parameters``, ``macs`` (multiply-accumulates of one image),
    ``input`` (``channels``, ``height``, ``width``, ``mean``, ``std``; the last two None where images are fed as they
    are), ``classes`` (a count), ``warnings`` (sentences) and ``layers``: in execution order ``name``, ``kind``,
    ``output`` (``[c, h, w]`` or ``[n]``), ``parameters``, ``macs`` and ``receptive_field`` (``size``, ``stride``,
    ``start``, each a number or ``[y, x]``, and ``status``). Where a number cannot be had it is None, and a warning
    says why.

    >>> from sp_core.checkpoints import load
    >>> card = describe(load("zoo:textures-vgg", device="cpu"))
    >>> card["classes"], card["layers"][0]["output"], card["layers"][0]["receptive_field"]["size"]
    (18, [32, 64, 64], 3)
    """
    layers = net.layers
    warnings = list(net.warnings)
    counts = _try(lambda: complexity(net), "counts", warnings)
    fields = _try(lambda: receptive_fields(net), "receptive fields", warnings) or {}
    if counts is not None and counts.status != "complete":
        warnings.append(f"The counts are {counts.status}.")
    channels, height, width = net.input_size
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
        },
        "classes": net.class_count,
        "warnings": warnings,
        "layers": [_row(layer, counts, fields.get(layer.name)) for layer in layers],
    }


def _row(layer: Layer, counts: Complexity | None, seen: ReceptiveField | None) -> dict[str, Any]:
    own = counts.per_layer.get(layer.name) if counts is not None else None
    return {
        "name": layer.name,
        "kind": layer.kind,
        "output": list(layer.output_shape),
        "parameters": own.parameters if own is not None else None,
        "macs": own.macs if own is not None else None,
        "receptive_field": _field(seen),
    }


def _field(seen: ReceptiveField | None) -> dict[str, Any]:
    if seen is None:
        return {"size": None, "stride": None, "start": None, "status": "unavailable"}
    return {
        "size": _plain(seen.size),
        "stride": _plain(seen.stride),
        "start": _plain(seen.start),
        "status": seen.status,
    }


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
    ...          "std": None}, "classes": 0, "warnings": [], "layers": []}).splitlines()[0]
    'n: unknown architecture (exact), from memory'
    """
    size = card["input"]
    macs = f"{card['macs']:,}" if card["macs"] is not None else "unknown"
    known = f"{card['architecture'] or 'unknown architecture'} ({card['confidence']})"
    lines = [
        f"{card['name']}: {known}, from {card['source']}",
        f"fingerprint {card['fingerprint']}, {card['parameters']:,} parameters, {macs} multiply-accumulates an image",
        f"input {size['channels']}×{size['height']}×{size['width']}, {_normalisation(size)}; {card['classes']} classes",
    ]
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
    output = "×".join(map(str, layer["output"]))
    return f"{layer['name']:32} {layer['kind']:20} {output:>14} {numbers[0]:>12} {numbers[1]:>14}  {field}{note}"
