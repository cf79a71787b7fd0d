"""What is to be built: which layers, and all that an index is known by; and whether a folder holds that very thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sp_core.datasets.passes import batch_size, network_facts
from sp_core.datasets.source import take
from sp_core.datasets.textures import Textures
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.patches import store
from sp_core.patches.fields import fields
from sp_core.patches.tally import BINS, SAMPLES
from sp_core.receptive_field import blind_layers
from sp_core.relations import relations
from sp_core.trace import Layer, input_dtype

MOST_CLASS_BYTES = 256 * 2**20  # class profiles that would need more are left out, and the index says so
# Layers that only move values or drop some of them; they can be asked for by name.
PASSING = (
    "Flatten",
    "Unflatten",
    "Identity",
    "Dropout",
    "Pool",
    "Pad",
    "Upsample",
    "Shuffle",
    "Fold",
    "StochasticDepth",
)


def identify(net: Network, dataset: Any, top: int, layers: Iterable[str] | None, batch: int | None) -> dict[str, Any]:
    """What an index is known by, as it stands in ``index.json``: network, data set, settings, layers."""
    rows = _layers(net, layers)
    channels = sum(row["shape"][0] for row in rows if "same_as" not in row)
    classes = tuple(dataset.classes)
    profile = channels * len(classes) * 8 <= MOST_CLASS_BYTES
    recipe = {}
    if type(dataset) is Textures:
        recipe = {"textures": {"seed": dataset.seed, "offset": dataset.offset, "size": dataset.size}}
    return {
        "schema": store.SCHEMA,
        "network": network_facts(net),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "count": len(dataset),
            "classes": list(classes),
            "profile": profile,
            **recipe,
        },
        "settings": {"top": top, "batch": batch or batch_size(net), "samples": SAMPLES, "bins": BINS},
        "layers": rows,
    }


def _layers(net: Network, wanted: Iterable[str] | None) -> list[dict[str, Any]]:
    """The layers to index, in order of execution, as they stand in ``index.json``."""
    named = None if wanted is None or wanted == "compact" else [net.layer_with_units(name).name for name in wanted]
    same, follows = relations(net)
    table = {layer.name: layer for layer in net.layers}
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    known_fields, blind = fields(net), blind_layers(net)
    for layer in net.layers:
        usable = (layer.is_map or len(layer.output_shape) == 1) and layer.name not in blind
        if named is not None and layer.name in named and not usable:
            shape = f"gives {list(layer.output_shape)}, neither a map nor a vector"
            why = "is the same for every image" if layer.name in blind else shape
            raise SpError(f"Layer {layer.name} {why}; choose another.")
        if not usable or not (layer.name in named if named is not None else _is_default(layer, wanted, follows, table)):
            continue
        row: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "shape": list(layer.output_shape)}
        if same.get(layer.name) in known:
            row["same_as"] = same[layer.name]
        else:
            known.add(layer.name)
        if layer.is_map and layer.name in known_fields:
            row["field"] = known_fields[layer.name]
        rows.append(row)
    names = [row["name"] for row in rows if "same_as" not in row]
    risen = rising(net, names)
    for row in rows:
        if row["name"] in risen:
            rise = risen[row["name"]]
            row |= {"rises": rise.before, "turned": rise.turned.nonzero()[:, 0].tolist()}
    if not rows:
        raise SpError(f"{net.name} has no layer whose output is a map or a vector, so there is nothing to index.")
    return rows


def _is_default(layer: Layer, wanted: Any, follows: dict[str, str], table: dict[str, Layer]) -> bool:
    if layer.leaf and any(word in layer.kind for word in PASSING):
        return False
    if wanted != "compact":
        return True
    after = [table[name].kind for name, before in follows.items() if before == layer.name]
    normalised = layer.leaf and any("Norm" in kind for kind in after)
    rectified = layer.kind in {"ReLU", "ReLU6"} and layer.name in follows
    return not normalised and not rectified


@dataclass(frozen=True)
class Rise:
    """A layer whose largest value is made of that of ``before``, whose very output it is given.

    ``turned`` bool ``[channels]``: those in which the order of the values is turned round or lost, by a scale of a
    normalisation that is not above 0.
    """

    before: str
    turned: Tensor


def rising(net: Network, layers: Iterable[str]) -> dict[str, Rise]:
    """Layers that keep the order of a channel's values, in order of execution: two of three, as a rule.

    Rectifiers that clip or scale, and normalisations by stored statistics: what they make of one value is, to the bit
    or the last one, what they make of it within a map. Where a rectifier makes many values equal, the place of the
    largest is the one where its input is largest, and the images come in the order of its input.
    """
    if input_dtype(net.module) != torch.float32:
        return {}
    follows, wanted, found = relations(net)[1], set(layers), {}
    for name, before in follows.items():
        if name not in wanted or before not in wanted:
            continue
        part, channels = net.module.get_submodule(name.split("#")[0]), net.layer(name).channels
        turned = torch.zeros(channels, dtype=torch.bool, device=net.device)
        if type(part) is nn.BatchNorm2d and part.running_mean is not None:
            turned = turned if part.weight is None else part.weight.detach() <= 0
        elif not _clips(part):
            continue
        if net.layer(name).is_map:
            found[name] = Rise(before, turned)
    return found


def _clips(part: nn.Module) -> bool:
    """Whether ``part`` leaves a value, scales it by a number that is not negative, or cuts it at a limit."""
    if type(part) is nn.LeakyReLU:
        return part.negative_slope >= 0
    return type(part) in {nn.ReLU, nn.ReLU6, nn.Hardtanh}


def check_same(old: dict[str, Any], new: dict[str, Any], dataset: Any, folder: Path, start: int) -> None:
    """Raise SpError that says in what the index in ``folder`` differs from the one that is to be built."""

    def differ(what: str, there: Any, here: Any) -> SpError:
        return SpError(
            f"{folder} holds an index with another {what} ({there}) than this one's ({here}); name another folder, or "
            "start over (--fresh; resume=False)."
        )

    for part in ("fingerprint", "input", "mean", "std", "resize"):
        if old["network"][part] != new["network"][part]:
            name = "network" if part == "fingerprint" else f"network {part}"
            raise differ(
                name,
                f"{old['network']['name']}, {old['network'][part]}",
                f"{new['network']['name']}, {new['network'][part]}",
            )
    if [(r["name"], r["shape"]) for r in old["layers"]] != [(r["name"], r["shape"]) for r in new["layers"]]:
        raise differ("choice of layers", f"{len(old['layers'])} layers", f"{len(new['layers'])} layers")
    for part in ("top", "samples", "bins"):
        if old["settings"][part] != new["settings"][part]:
            raise differ(f"setting `{part}`", old["settings"][part], new["settings"][part])
    if old["start"] != start:
        raise differ("start", old["start"], start)
    was, now = old["dataset"], new["dataset"]
    grown = was["count"] < now["count"] and take(dataset, was["count"]).fingerprint == was["fingerprint"]
    if was["fingerprint"] != now["fingerprint"] and not (grown and was["profile"] == now["profile"]):
        raise differ(
            "data set",
            f"{was['count']} images of {was['name']}, {was['fingerprint']}",
            f"{now['count']} images of {now['name']}, {now['fingerprint']}",
        )
