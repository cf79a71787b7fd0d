"""Train a whole table, row by row and seed by seed, and keep what came out as data.

``FOLDER/NAME.json`` holds every finished run; it is written anew after each, so a stopped table goes on with the runs
that are missing. Several workers train several small networks at once, each in a process of its own with one thread on
the CPU: one small network cannot fill a machine.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sp_core import zoo
from sp_core.counts import complexity
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations import fold, free_parameters
from sp_core.training.files import write_card, write_json, write_weights
from sp_core.training.loop import train
from sp_core.training.recipes import Recipe
from sp_core.training.tables import Row, Table


@dataclass(frozen=True)
class Finished:
    """One run of a table is done: ``done`` of ``runs``, its ``card`` (see :func:`sp_core.training.train`)."""

    done: int
    runs: int
    label: str
    seed: int
    card: dict[str, Any]


def _one(recipe: Recipe, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train ``recipe`` to its end and return its card; a run that another table made already is not made again."""
    made = Path(folder) / f"{recipe.name}.json"
    if made.exists() and (card := json.loads(made.read_text()))["complete"]:
        same = card["precision"] == settings["precision"] or settings["precision"] is None
        if same and card["recipe"] == asdict(recipe):
            return card
    if settings["device"].startswith("cpu"):
        torch.set_num_threads(1)
    card = {}
    for progress in train(recipe, folder, resume=True, report_every=recipe.steps, **settings):
        card = progress.card or card
    return card


def size(row: Row) -> dict[str, int]:
    """Numbers a trained network of ``row`` needs, and multiply-accumulates for one image.

    >>> from sp_core.training.tables import TABLES
    >>> size(TABLES["symmetric"].rows[2])["parameters"]  # reference: .172 million
    172106
    """
    options = dict(row.options)
    if row.exit is not None:
        options["exits"] = row.exit + 1
    with torch.random.fork_rng(devices=[]):
        module = zoo.create(row.architecture, **options).eval()
    net = Network(module, input_size=zoo.entry(row.architecture).input_size)
    return {"parameters": free_parameters(module), "macs": complexity(net).macs}


def compare(
    table: Table,
    folder: str | Path,
    *,
    data: str,
    seeds: int = 1,
    device: str = "cpu",
    precision: str | None = None,
    compiled: bool = False,
    workers: int = 1,
    weights: str | Path = "runs",
) -> Iterator[Finished]:
    """Train what is missing of ``table`` and leave ``NAME.json`` in ``folder``; one record a finished run.

    ``data``: the folder of CIFAR-10. ``seeds``: 0 … seeds - 1. ``weights``: where the runs' own files go, from which
    they are resumed. ``workers``: networks trained at once.

    Raises:
        SpError: the file in ``folder`` is of another budget, or a setting is wrong.
    """
    path = Path(folder) / f"{table.name}.json"
    recipes: dict[str, tuple[Row, Recipe]] = {}
    for seed in range(seeds):
        for row in table.rows:
            recipe = table.recipe(row, seed)
            recipes.setdefault(recipe.name, (row, recipe))
    known = _known(path, table)
    if known:  # one table, one way of training: what is there decides
        precision = precision or next(iter(known.values()))["precision"]
    cards = {name: card for name, card in known.items() if name in recipes}
    settings = {"device": device, "precision": precision, "data": data, "compiled": compiled}
    missing = [name for name in recipes if name not in cards]
    for name, card in _trained([recipes[name][1] for name in missing], str(weights), settings, workers):
        cards[name] = card
        write_json(path, _record(table, known | cards))
        row, recipe = recipes[name]
        label = row.label if row.exit is None else f"{row.architecture}, the last exit"
        yield Finished(len(cards), len(recipes), label, recipe.seed, card)


def _trained(
    recipes: list[Recipe], weights: str, settings: dict[str, Any], workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and card of each recipe, in the order in which they are done."""
    if workers == 1:
        for recipe in recipes:
            yield recipe.name, _one(recipe, weights, settings)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_one, recipe, weights, settings): recipe.name for recipe in recipes}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _known(path: Path, table: Table) -> dict[str, dict[str, Any]]:
    """Cards of the runs that are done, by the recipe's name."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    budget = record["budget"]
    if (budget["images"], budget["batch"]) != (table.images, table.batch):
        raise SpError(
            f"'{path}' was trained with {budget['images']} images in batches of {budget['batch']}, not {table.images} "
            f"in {table.batch}; give --images {budget['images']}, or another folder with --out"
        )
    return {run["name"]: run for run in record["runs"]}


def _record(table: Table, cards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The table with what was measured, as it is kept."""
    rows = []
    for row in table.rows:
        seeds = []
        for card in sorted(cards.values(), key=lambda card: card["seed"]):
            if card["name"] != table.recipe(row, card["seed"]).name:
                continue
            measured = card if row.exit is None else card["exits"][row.exit]
            accuracy = measured["held_out_accuracy" if row.exit is None else "accuracy"]
            loss = measured["held_out_loss" if row.exit is None else "loss"]
            seeds.append({"seed": card["seed"], "accuracy": accuracy, "loss": loss, "seconds": card["seconds"]})
        rows.append(
            {
                "label": row.label,
                "architecture": row.architecture,
                "options": row.options,
                "exit": row.exit,
                **size(row),
                "seeds": seeds,
                "published": None if row.error is None else {"error": row.error, "source": table.source},
            }
        )
    some = next(iter(cards.values()))
    return {
        "name": table.name,
        "title": table.title,
        "source": table.source,
        "data": some["data"],
        "budget": {
            "images": table.images,
            "batch": table.batch,
            "test_images": some["held_out_images"],
            "learning_rate": table.learning_rate,
            "devices": sorted({card["device"] for card in cards.values()}),
            "precisions": sorted({card["precision"] for card in cards.values()}),
            "seconds": round(sum(card["seconds"] for card in cards.values()), 1),
            "libraries": some["libraries"],
        },
        "rows": rows,
        "runs": [
            {
                key: card[key]
                for key in (
                    "name",
                    "seed",
                    "precision",
                    "device",
                    "seconds",
                    "held_out_accuracy",
                    "held_out_loss",
                    "held_out_images",
                    "data",
                    "libraries",
                    "sha256",
                )
            }
            | ({"exits": card["exits"]} if "exits" in card else {})
            for card in cards.values()
        ],
    }


def kept(table: Table, weights: str | Path, folder: str | Path) -> list[str]:
    """Write the first seed's weights and card of the rows that are bundled to ``folder``; their names.

    Symmetric weights are folded into plain ones: a free W does not show what is made of it. The card's ``recipe`` is
    the row's own.
    """
    names: list[str] = []
    for row in table.rows:
        if not row.keep or row.keep in names:
            continue
        recipe = table.recipe(row, 0)
        source = Path(weights) / f"{recipe.name}.safetensors"
        if not source.exists():
            raise SpError(f"'{source}' is not there; train the table '{table.name}' first, with --weights {weights}")
        card = json.loads(source.with_suffix(".json").read_text())
        net = zoo.create(row.architecture, **row.options)
        net.load_state_dict(load_file(source))
        if "symmetry" in row.options:
            net = fold(net)
            card["architecture"] = row.architecture
        bundled = replace(recipe, name=row.keep)
        card |= {"name": row.keep, "sha256": write_weights(Path(folder), bundled, net)}
        write_card(Path(folder), bundled, card)
        names.append(row.keep)
    return names
