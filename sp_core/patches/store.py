"""An index on disk: ``index.json`` and one ``.safetensors`` file, replaced together or not at all.

The arrays of a new state are written under a new name first; then ``index.json``, which names them, takes the place of
the old one in one step; then the old arrays go. Whenever the program is killed, ``index.json`` names a file that is
whole, so the index can be read while it is built and the building goes on where it was. Nothing that depends on the
clock or the machine is written: the same images give the same bytes.

``index.json`` holds ``schema`` (the number of this format), ``network``, ``dataset``, ``settings``, how far the
building is, and ``layers`` in order of execution: of each ``name``, ``kind``, ``shape`` and ``field``
(:mod:`sp_core.patches.fields`); ``same_as`` a layer whose output it passes on, and then it has no arrays; ``rises`` a
layer in whose order its images are, but for the channels ``turned`` (:func:`sp_core.patches.plan.rising`). The arrays
of a layer are those of :class:`~sp_core.patches.tally.Tally`, called ``LAYER/ARRAY``.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sp_core.disk import replace
from sp_core.errors import SpError
from sp_core.patches.tally import Sample, Tally

SCHEMA = 2
NAMED_SKIPS = 20  # images that could not be read are counted; so many are named


def _empty() -> Tensor:
    return torch.zeros(0, dtype=torch.int32)


@dataclass
class State:
    """All that is known after images ``start … done - 1``.

    ``header`` is what identifies the index: schema, network, dataset, settings, layers. ``images`` counts those that
    were read; ``skipped`` names the first that were not. ``kept`` ``[m]`` ascending and ``labels`` ``[m]``: the images
    that some channel keeps, and their classes. ``class_counts`` int64 ``[classes]``. ``tally`` holds the channels of
    all layers one after another; ``columns`` says which are a layer's.
    """

    header: dict[str, Any]
    start: int
    done: int
    tally: Tally
    sample: Sample
    class_counts: Tensor
    images: int = 0
    skipped: list[int] = field(default_factory=list)
    skipped_count: int = 0
    kept: Tensor = field(default_factory=_empty)
    labels: Tensor = field(default_factory=_empty)

    @classmethod
    def empty(cls, header: dict[str, Any], start: int) -> State:
        """What is known before the first image."""
        classes = len(header["dataset"]["classes"])
        channels = sum(row["shape"][0] for row in header["layers"] if "same_as" not in row)
        return cls(
            header=header,
            start=start,
            done=start,
            tally=Tally(channels, header["settings"]["top"], classes if header["dataset"]["profile"] else 0),
            sample=Sample(torch.zeros(0, dtype=torch.int64)),
            class_counts=torch.zeros(classes, dtype=torch.int64),
        )

    @property
    def columns(self) -> dict[str, slice]:
        """Layer name to its channels in ``tally``, without layers that are the same as an earlier one."""
        return columns(self.header["layers"])

    @property
    def tallies(self) -> dict[str, Tally]:
        """Layer name to the tally of its channels, which shares the memory of ``tally``."""
        return {name: self.tally.part(where) for name, where in self.columns.items()}

    def merge(self, later: State) -> None:
        """Take in the state of the images ``later.start … later.done - 1`` that follow; ``later.start == self.done``.

        Associative: any way to put parts together in their order gives the state of one pass over all of them.
        """
        held = len(self.sample.images)
        order = self.sample.add(later.sample.images)
        sampled = torch.arange(held) if order is None else order
        self.tally.merge(later.tally, sampled, source(self.header["layers"]))
        self.done, self.images = later.done, self.images + later.images
        self.skipped = (self.skipped + later.skipped)[:NAMED_SKIPS]
        self.skipped_count += later.skipped_count
        self.class_counts += later.class_counts
        self.kept, self.labels = torch.cat([self.kept, later.kept]), torch.cat([self.labels, later.labels])

    def prune(self) -> None:
        """Forget the labels of images that no channel keeps."""
        both = (self.tally.arrays["top_image"].flatten(), self.tally.arrays["bottom_image"].flatten())
        wanted = torch.cat([self.sample.images.int(), *both]).unique()
        at = torch.isin(self.kept, wanted)
        self.kept, self.labels = self.kept[at], self.labels[at]


def columns(layers: list[dict[str, Any]]) -> dict[str, slice]:
    """Layer name to its channels among all channels, of the layers as ``index.json`` lists them."""
    found, first = {}, 0
    for row in layers:
        if "same_as" not in row:
            found[row["name"]] = slice(first, first + row["shape"][0])
            first += row["shape"][0]
    return found


def source(layers: list[dict[str, Any]]) -> Tensor:
    """In whose order each channel's images are, itself or another: int64 ``[channels]``.

    A layer that ``rises`` from another has that one's, but for the channels that are ``turned``; see
    :func:`sp_core.patches.plan.rising`.

    >>> source([{"name": "a", "shape": [3]}, {"name": "b", "shape": [3], "rises": "a", "turned": [1]}]).tolist()
    [0, 1, 2, 0, 4, 2]
    """
    where = columns(layers)
    found = torch.arange(max((of.stop for of in where.values()), default=0))
    for row in layers:  # in order of execution: what one rises from is known before
        if "rises" in row:
            own = found[where[row["name"]]].clone()
            found[where[row["name"]]] = found[where[row["rises"]]]
            turned = torch.tensor(row["turned"], dtype=torch.int64)
            found[where[row["name"]].start + turned] = own[turned]
    return found


def read_header(folder: str | Path, any_format: bool = False) -> dict[str, Any] | None:
    """The content of ``index.json``; None when there is none. Raises SpError when it is not one of ours.

    So it does for another format, unless ``any_format`` will do.
    """
    path = Path(folder) / "index.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SpError(f"{path} cannot be read ({error}); choose another folder.") from error
    try:
        header = json.loads(text)
        if header["schema"] != SCHEMA and not any_format:
            raise SpError(
                f"{path} has format {header['schema']}, this program reads {SCHEMA}; build the index again "
                "(--fresh; resume=False)."
            )
        return header
    except (ValueError, KeyError, TypeError) as error:
        raise SpError(f"{path} is not the description of a patch index; choose another folder.") from error


def write(folder: str | Path, state: State) -> None:
    """Put ``state`` in the place of what the folder holds, in one step."""
    home = Path(folder)
    text, arrays = pack(state)
    try:
        home.mkdir(parents=True, exist_ok=True)
        name = _file(state)
        replace(home / name, arrays)
        replace(home / "index.json", text.encode())
        for old in [*home.glob("arrays-*.safetensors"), *home.glob(".*.part")]:  # also what a killed builder left
            if old.name != name:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise SpError(
            f"The index cannot be written to {folder} ({error.strerror or error}); free or name a folder."
        ) from error


def pack(state: State) -> tuple[str, bytes]:
    """What the two files of an index hold: ``index.json`` and the arrays. :func:`unpack` makes a state of it again."""
    state.prune()
    text = json.dumps(_describe(state), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    # numpy's writer gives the same bytes as torch's in a third of the time.
    return text, safetensors.numpy.save({name: array.numpy() for name, array in _arrays(state).items()})


def unpack(text: str, arrays: bytes) -> State:
    """The state that :func:`pack` was given."""
    return _state(json.loads(text), safetensors.torch.load(arrays))


def _file(state: State) -> str:
    return f"arrays-{state.start:08d}-{state.done:08d}.safetensors"


def _describe(state: State) -> dict[str, Any]:
    return state.header | {
        "start": state.start,
        "done": state.done,
        "images": state.images,
        "skipped": state.skipped[:NAMED_SKIPS],
        "skipped_count": state.skipped_count,
        "class_counts": state.class_counts.tolist(),
        "arrays": _file(state),
    }


def _arrays(state: State) -> dict[str, Tensor]:
    """Arrays by the name they have in the file; whole numbers in 16 bits where all of them fit."""
    packed = {"sample_image": state.sample.images.int(), "kept_image": state.kept, "kept_label": state.labels}
    shapes = {layer["name"]: layer["shape"] for layer in state.header["layers"]}
    for name, tally in state.tallies.items():
        cells = 1
        for side in shapes[name][1:]:
            cells *= side
        for what, array in tally.arrays.items():
            largest = cells if what.endswith("_position") else state.done
            short = array.dtype == torch.int32 and largest < 2**15 and what != "sketch_first"
            packed[f"{name}/{what}"] = (array.to(torch.int16) if short else array).contiguous()
    return packed


def load(folder: str | Path) -> State:
    """The whole state, to go on from. Raises SpError when there is no index or its arrays are damaged."""
    for _ in range(5):  # a builder may replace the files between the two reads
        header = read_header(folder)
        if header is None:
            raise SpError(f"{folder} holds no patch index (no index.json); build one with the verb 'index'.")
        try:
            arrays = safetensors.torch.load((Path(folder) / header["arrays"]).read_bytes())
            return _state(header, arrays)
        except FileNotFoundError:
            continue
        except (SafetensorError, KeyError, OSError) as error:
            raise SpError(f"The arrays of the index in {folder} are damaged ({error}); build it again.") from error
    raise SpError(f"The arrays of the index in {folder} are missing; build it again.")


def _state(full: dict[str, Any], arrays: dict[str, Tensor]) -> State:
    header = {key: full[key] for key in ("schema", "network", "dataset", "settings", "layers")}
    top = header["settings"]["top"]
    tally = Tally(0, top, 0)
    for what in tally.arrays:
        parts = [arrays[f"{name}/{what}"] for name in columns(header["layers"])]
        axis = 1 if what == "class_sum" else 0
        tally.arrays[what] = torch.cat([part.int() if part.dtype == torch.int16 else part for part in parts], axis)
    return State(
        header=header,
        start=full["start"],
        done=full["done"],
        tally=tally,
        sample=Sample(arrays["sample_image"].long(), header["settings"]["samples"]),
        class_counts=torch.tensor(full["class_counts"], dtype=torch.int64),
        images=full["images"],
        skipped=list(full["skipped"]),
        skipped_count=full["skipped_count"],
        kept=arrays["kept_image"],
        labels=arrays["kept_label"],
    )


def cache_folder(net: Any, source: str) -> Path:
    """Where the index of ``net`` over the data set named ``source`` is kept: below ``SP_CACHE``, or in the home folder.

    Named by the fingerprint of the weights, how the network is fed, the format, and the data set's name (not its
    length: an index can grow).
    """
    root = Path(os.environ.get("SP_CACHE") or Path.home() / ".cache" / "structural-priors")
    fed = f"{net.architecture}|{net.input_size}|{net.mean}|{net.std}|{net.resize}|{source}|{SCHEMA}"
    return root / "indexes" / f"{net.fingerprint}-{hashlib.sha256(fed.encode()).hexdigest()[:12]}"
