"""Which layers have features, what features are known by, and whether a folder holds those very ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sp_core.datasets.passes import network_facts
from sp_core.datasets.source import take
from sp_core.errors import SpError
from sp_core.nearest.features import SCHEMA
from sp_core.network import Network
from sp_core.receptive_field import blind_layers
from sp_core.trace import Layer


def default_layers(net: Network, count: int = 6) -> tuple[str, ...]:
    """At most ``count`` layers spread over the depth, the last one among them.

    Of the outermost modules that put out maps or a vector, without those that only move values; where there are fewer
    than three of them, of all layers with weights.
    """
    blind = blind_layers(net)
    usable = [
        layer for layer in net.layers if (layer.is_map or len(layer.output_shape) == 1) and layer.name not in blind
    ]
    blocks = [layer for layer in usable if not layer.leaf or _weighs(net, layer)]
    outer = [layer for layer in blocks if layer.name.count(".") == 0]
    names = [layer.name for layer in (outer if len(outer) >= 3 and len(outer) > len(blocks) // 8 else blocks)]
    if not names:
        raise SpError(f"{net.name} has no layer whose output is a map or a vector, so it has no features.")
    count = min(count, len(names))
    at = [round((i + 1) * len(names) / count) - 1 for i in range(count)]
    return tuple(names[i] for i in at)


def _weighs(net: Network, layer: Layer) -> bool:
    part = net.module.get_submodule(layer.module)
    return any(parameter.ndim > 1 for parameter in part.parameters())


def describe(net: Network, dataset: Any, layers: Iterable[str] | None) -> dict[str, Any]:
    """What features are known by, as it stands in ``features.json``, before the first image.

    Raises:
        SpError: a layer does not exist, keeps its channels last, is the same for every image, or puts out neither maps
            nor a vector.
    """
    names, blind = list(default_layers(net) if layers is None else layers), blind_layers(net)
    for name in names:
        layer = net.layer_with_units(name)
        if layer.name in blind:
            raise SpError(f"Layer {name} is the same for every image; choose another.")
        if not layer.is_map and len(layer.output_shape) != 1:
            raise SpError(f"Layer {name} gives {list(layer.output_shape)}, neither maps nor a vector; choose another.")
    return {
        "schema": SCHEMA,
        "network": network_facts(net),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "count": len(dataset),
            "classes": list(dataset.classes),
        },
        "layers": names,
        "done": 0,
        "blocks": [],
    }


def check_same(old: dict[str, Any], new: dict[str, Any], dataset: Any, folder: Path) -> None:
    """Raise SpError that says in what the features in ``folder`` differ from those that are to be built."""
    for part in ("network", "layers"):
        if old[part] != new[part]:
            raise SpError(f"{folder} holds features of another {part}; name another folder, or start over.")
    was, now = old["dataset"], new["dataset"]
    grown = was["count"] < now["count"] and take(dataset, was["count"]).fingerprint == was["fingerprint"]
    if was["fingerprint"] != now["fingerprint"] and not grown:
        raise SpError(
            f"{folder} holds features of another data set ({was['count']} images of {was['name']}); name another "
            "folder, or start over."
        )
