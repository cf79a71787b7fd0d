"""One architecture of the zoo, described without memory: what it costs, layer by layer, and what feeds what.

Everything is counted on empty meta tensors, so that a VGG costs no half gigabyte. ``assets/figures/zoo.json`` holds
parameters and multiply-accumulates of every listed name; ``python -m sp_core.architecture`` makes it again (two
minutes), and ``tests/test_architecture.py`` compares it with what is counted.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sp_core import zoo
from sp_core.checkpoints.catalogue import empty_on_meta
from sp_core.checkpoints.named import option
from sp_core.counts import complexity
from sp_core.errors import SpError
from sp_core.flow import Flow, flow
from sp_core.network import Network
from sp_core.published import FOLDER
from sp_core.receptive_field import pair, receptive_fields

TABLE = FOLDER / "zoo.json"


@dataclass(frozen=True)
class LayerRow:
    """One layer of the table: ``field`` and ``stride`` are its receptive field's, in pixels, along y and x.

    ``field`` is None where a unit sees the whole image or nothing of it, which ``status`` says.
    """

    name: str
    kind: str
    leaf: bool
    shape: tuple[int, ...]
    parameters: int
    macs: int
    field: tuple[float, float] | None
    stride: tuple[float, float] | None
    status: str


@dataclass(frozen=True)
class Architecture:
    """An architecture as it is made with ``options``.

    Attributes:
        name, about: of the zoo.
        options: that were given.
        takes: every option it takes, with its default as text.
        input_size: (channels, height, width).
        parameters, macs: by torch's convention; ``status`` is ``"partial"`` where an operation could not be counted.
        layers: in execution order, containers included.
        graph: what feeds what; None with ``why`` where it needs real numbers.
    """

    name: str
    about: str
    options: Mapping[str, Any]
    takes: Mapping[str, str]
    input_size: tuple[int, int, int]
    parameters: int
    macs: int
    status: str
    layers: tuple[LayerRow, ...]
    graph: Flow | None
    why: str = ""
    elsewhere: str = ""


def on_meta(name: str, options: Mapping[str, Any] | None = None) -> Network:
    """The network ``name`` of the zoo with empty weights, for counting.

    >>> on_meta("wrn-16-1", {"classes": 100}).layers[-1].output_shape
    (100,)
    """
    with empty_on_meta():
        module = zoo.create(name, **(options or {}))
    return Network(module.eval(), name=name, input_size=zoo.entry(name).input_size)


def options_in(text: str) -> dict[str, Any]:
    """Options as a person writes them, ``KEY=VALUE`` with spaces between.

    >>> options_in("symmetry=triangular classes=100")
    {'symmetry': 'triangular', 'classes': 100}
    """
    return dict(option(part) for part in text.split()[:20])


def describe(name: str, options: Mapping[str, Any] | None = None) -> Architecture:
    """Everything about one architecture.

    Raises:
        SpError: the zoo has no such name, or it has no such option.

    >>> lenet = describe("lenet5")
    >>> lenet.parameters, lenet.macs, lenet.layers[0].field
    (61706, 416520, (5.0, 5.0))
    """
    entry, options = zoo.entry(name), dict(options or {})
    try:
        net = on_meta(name, options)
    except (TypeError, ValueError, RuntimeError) as error:  # an option whose value it cannot take
        written = ", ".join(f"{key}={value}" for key, value in options.items())
        raise SpError(f"{name} cannot be made with {written}: {error}. Change the options.") from error
    counts, found = complexity(net), receptive_fields(net)
    rows = []
    for layer in net.layers:
        field, cost = found[layer.name], counts.per_layer[layer.name]
        known = field.status in {"complete", "partial"} and layer.is_map
        rows.append(
            LayerRow(
                layer.name,
                layer.kind,
                layer.leaf,
                layer.output_shape,
                cost.parameters,
                cost.macs,
                _both(field.size) if known else None,
                _both(field.stride) if known else None,
                field.status,
            )
        )
    graph, why = None, ""
    try:
        graph = flow(net)
    except SpError as error:
        why = str(error)
    takes = {key: _default(value) for key, value in inspect.signature(entry.make).parameters.items()}
    return Architecture(
        name, entry.about, options, takes, net.input_size, counts.parameters, counts.macs, counts.status,
        tuple(rows), graph, why, entry.elsewhere,
    )  # fmt: skip


def _both(extent: float | tuple[float, float]) -> tuple[float, float]:
    y, x = pair(extent)
    return float(y), float(x)


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else str(parameter.default)


@cache
def costs() -> Mapping[str, tuple[int, int]]:
    """Parameters and multiply-accumulates (torch's convention) of every name of the zoo, from the table.

    >>> costs()["lenet5"]
    (61706, 416520)
    """
    return {name: (row[0], row[1]) for name, row in json.loads(TABLE.read_text("utf-8"))["networks"].items()}


def cost(name: str) -> tuple[int, int]:
    """The same of one name, counted where the table lacks it.

    >>> cost("wrn-16-1")
    (175066, 24763264)
    """
    if name in costs():
        return costs()[name]
    found = complexity(on_meta(name))
    return found.parameters, found.macs


def main() -> None:
    """Count every name and write the table; progress goes to standard error."""
    rows = {}
    for name in zoo.names():
        found = complexity(on_meta(name))
        rows[name] = [found.parameters, found.macs]
        sys.stderr.write(f"{name} {rows[name]}\n")
    about = "Parameters and multiply-accumulates of every name of the zoo, counted by python -m sp_core.architecture."
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    TABLE.write_text(f'{{\n "about": {json.dumps(about)},\n "networks": {{\n{lines}\n }}\n}}\n', "utf-8")


if __name__ == "__main__":
    main()
