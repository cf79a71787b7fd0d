"""Reading an index: the patches of a unit, percentiles, class profiles. Neither network nor images are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sp_core import images as pictures
from sp_core.datasets.passes import network_facts
from sp_core.errors import SpError
from sp_core.network import Unit
from sp_core.patches import store
from sp_core.patches.fields import Box, box
from sp_core.patches.percentiles import percentiles
from sp_core.patches.tally import UNIT


@dataclass(frozen=True)
class Patch:
    """The place of one image where a channel fires most, and the pixels it sees there.

    Attributes:
        unit: layer, channel and position (None for a layer whose output is a vector).
        image: the image's number in the data set.
        label: its class; -1 where unknown.
        activation: the channel's spatial maximum in that image.
        percentile: share of the images, 0 to 100, whose maximum is not larger. Exact for the ones kept at both ends,
            else good to a few points.
        box: the unit's receptive field in pixels of what the network sees (after resizing and cropping), as far as it
            lies in the image.
        field: the same, not clipped: it may reach outside the image, where the unit sees padding.
        exact: whether the field is exact; if not, the layer's note says why.
    """

    unit: Unit
    image: int
    label: int
    activation: float
    percentile: float
    box: Box
    field: Box
    exact: bool = True

    @property
    def position(self) -> tuple[int, int] | None:
        """(y, x) in the layer's map; None for a vector."""
        return self.unit.position


@dataclass(frozen=True)
class Feed:
    """How the indexed network is fed: all that a data set must know of it to give the images that it saw."""

    input_size: tuple[int, int, int]
    resize: int
    device: str = "cpu"

    def view(self, image: Image.Image) -> Tensor:
        """What the network sees of ``image``: float32 ``[c, h, w]`` in [0, 1]; as :meth:`sp_core.Network.view`."""
        return pictures.to_tensor(pictures.resize_and_crop(image, self.resize, self.input_size[1:]), self.input_size[0])


class PatchIndex:
    """What :func:`build_patch_index` has written; can be opened while it is still being built.

    ``layers`` are the names in order of execution; ``images`` is how many images went in; ``done`` and ``total``
    say how far the building is; ``network`` and ``dataset`` are the entries of ``index.json``.

    Raises:
        SpError: there is no index in ``folder``, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._state = store.load(folder)
        header = self._state.header
        self.network: dict[str, Any] = header["network"]
        self.dataset: dict[str, Any] = header["dataset"]
        self.images: int = self._state.images
        self.skipped: int = self._state.skipped_count
        self.done: int = self._state.done
        self.total: int = header["dataset"]["count"]
        self.top_count: int = header["settings"]["top"]
        self.classes: tuple[str, ...] = tuple(header["dataset"]["classes"])
        self._rows: dict[str, dict[str, Any]] = {row["name"]: row for row in header["layers"]}
        self.layers: tuple[str, ...] = tuple(self._rows)
        self._columns = self._state.columns
        self._labels = dict(zip(self._state.kept.tolist(), self._state.labels.tolist(), strict=True))

    def top(self, unit: Unit | str, k: int | None = None) -> tuple[Patch, ...]:
        """The patches that drive ``unit`` most, strongest first: at most ``k``, never two of one image."""
        return self._extremes("top", unit, k)

    def bottom(self, unit: Unit | str, k: int | None = None) -> tuple[Patch, ...]:
        """The best patch of each of the images that drive ``unit`` least, weakest first."""
        return self._extremes("bottom", unit, k)

    def samples(self, unit: Unit | str, k: int | None = None) -> tuple[Patch, ...]:
        """The best patches of ``k`` images out of a random sample, evenly spaced from its strongest to its weakest.

        The sample (24 images, or all if there are fewer) is the same for all units.
        """
        name, channel = self._find(unit)
        arrays = self._arrays(name)
        values = arrays["sample_value"][channel]
        order = np.argsort(-values, kind="stable")
        count = self._count(k, len(order))
        chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)] if len(order) else order
        images = self._state.sample.images.numpy()
        return self._patches(unit, values[chosen], images[chosen], arrays["sample_position"][channel][chosen])

    def patches(self, unit: Unit | str, which: str = "best", k: int | None = None) -> tuple[Patch, ...]:
        """:meth:`top`, :meth:`bottom` or :meth:`samples`, by the word ``"best"``, ``"worst"`` or ``"random"``."""
        ask = {"best": self.top, "worst": self.bottom, "random": self.samples}
        if which not in ask:
            raise SpError(f"`which` must be one of {', '.join(ask)}; got '{which}'.")
        return ask[which](unit, k)

    def percentile(self, unit: Unit | str, value: float) -> float:
        """The share of the images, 0 to 100, in which the unit's spatial maximum is not above ``value``.

        Exact within the images kept at both ends and at 0, interpolated in a histogram between.
        """
        return float(self._percentiles(unit, np.asarray([value], dtype=np.float64))[0])

    def dead(self, layer: str) -> tuple[int, ...]:
        """Channels that were never above 0 in any image: behind a ReLU, channels that say nothing."""
        active = self._arrays(self._layer(layer))["active"]
        return tuple(int(channel) for channel in np.flatnonzero(active == 0))

    def active_share(self, unit: Unit | str) -> float:
        """The share of the images, 0 to 1, in which the unit is above 0 somewhere; NaN before the first image."""
        name, channel = self._find(unit)
        return float(self._arrays(name)["active"][channel]) / self.images if self.images else float("nan")

    def class_profile(self, unit: Unit | str) -> NDArray[np.float64]:
        """The mean spatial maximum over the images of each class, ``[classes]``; NaN for a class without images.

        Maxima are rounded to 2⁻²⁰ and counted as ±2²² beyond that.

        Raises:
            SpError: the data set has no classes, or too many for a profile of every channel.
        """
        name, channel = self._find(unit)
        if not self.classes:
            raise SpError(f"The images of {self.dataset['name']} have no classes; put them in one folder a class.")
        if not self.dataset["profile"]:
            raise SpError(
                f"{self.dataset['name']} has {len(self.classes)} classes: too many to keep a mean for every channel; "
                "index fewer layers."
            )
        sums = self._arrays(name)["class_sum"][:, channel].astype(np.float64) * UNIT
        counts = self._state.class_counts.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts > 0, sums / counts, np.nan)

    def channels(self, layer: str) -> int:
        """How many channels the layer has."""
        return int(self._rows[self._layer(layer, resolve=False)]["shape"][0])

    def shape(self, layer: str) -> tuple[int, ...]:
        """``(channels, height, width)`` of the layer's output, or ``(channels,)``."""
        return tuple(self._rows[self._layer(layer, resolve=False)]["shape"])

    def arrays(self, layer: str) -> dict[str, NDArray[Any]]:
        """All that is kept of a layer, by the names of :class:`sp_core.patches.tally.Tally`."""
        return self._arrays(self._layer(layer))

    @property
    def sample(self) -> NDArray[Any]:
        """The images of the random sample, int64, in the order of ``sample_value``."""
        return self._state.sample.images.numpy()

    def labels(self, images: NDArray[Any]) -> NDArray[Any]:
        """The classes of ``images`` that some unit keeps; -1 where unknown."""
        return np.array([self._labels.get(image, -1) for image in images.tolist()], dtype=np.int32)

    def field(self, layer: str) -> dict[str, Any] | None:
        """The layer's receptive field as ``index.json`` has it; None for a vector."""
        return self._rows[self._layer(layer, resolve=False)].get("field")

    def field_size(self, layer: str) -> tuple[int, int]:
        """(height, width) of the largest field of the layer's channels; the image's where the law does not hold."""
        row = self.field(layer)
        if row is None or row["status"] not in {"complete", "partial"}:
            return self.input_size[1], self.input_size[2]
        return int(row["size"][0]), int(row["size"][1])

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees."""
        channels, height, width = self.network["input"]
        return channels, height, width

    @property
    def feed(self) -> Feed:
        """How the network is fed; enough where only pictures are wanted: ``cut(dataset, patches, index.feed)``."""
        return Feed(self.input_size, int(self.network["resize"]))

    def fits(self, net: Any) -> bool:
        """Whether ``net`` is the network that was indexed, fed as it was then."""
        known = network_facts(net)
        return all(self.network[what] == known[what] for what in ("fingerprint", "input", "mean", "std", "resize"))

    def check_network(self, net: Any) -> None:
        """Raise SpError when ``net`` is not the network that was indexed."""
        if not self.fits(net):
            fed = ", fed otherwise" if net.fingerprint == self.network["fingerprint"] else ""
            raise SpError(
                f"The index in {self.folder} is of {self.network['name']} ({self.network['fingerprint']}), not of "
                f"{net.name} ({net.fingerprint}{fed}); build one for this network."
            )

    def open_dataset(self, source: Any = None) -> Any:
        """The images that were indexed, from ``source``; textures need none.

        Raises:
            SpError: the source is missing or has other images.
        """
        from sp_core.datasets.source import open as open_source
        from sp_core.datasets.source import take
        from sp_core.datasets.textures import Textures

        recipe = self.dataset.get("textures")
        if source is None and recipe:
            return Textures(self.total, **recipe)
        if source is None:
            raise SpError(f"This index is over {self.dataset['name']}; name its folder or zip to see the patches.")
        found = open_source(source)
        short = take(found, self.total) if len(found) >= self.total else found
        if short.fingerprint != self.dataset["fingerprint"]:
            raise SpError(
                f"{found.name} ({short.fingerprint}) is not what was indexed: {self.total} images of "
                f"{self.dataset['name']} ({self.dataset['fingerprint']}). Choose those images, or build a new index."
            )
        return short

    # --- inside -----------------------------------------------------------------------------------------------------

    def _layer(self, name: str, resolve: bool = True) -> str:
        row = self._rows.get(name)
        if row is None:
            import difflib

            close = difflib.get_close_matches(name, self.layers, 3, 0.5) or self.layers[:3]
            raise SpError(
                f"'{name}' is not one of the {len(self.layers)} layers of this index; try {', '.join(close)}."
            )
        return str(row.get("same_as", name)) if resolve else name

    def _find(self, unit: Unit | str) -> tuple[str, int]:
        """The layer whose arrays hold the unit, and the channel."""
        unit = Unit.parse(unit) if isinstance(unit, str) else unit
        name = self._layer(unit.layer)
        if not 0 <= unit.channel < self.channels(unit.layer):
            raise SpError(f"Layer {unit.layer} has channels 0 to {self.channels(unit.layer) - 1}; got {unit.channel}.")
        return name, unit.channel

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        return {what: array.numpy() for what, array in self._state.tally.part(self._columns[name]).arrays.items()}

    def _count(self, k: int | None, held: int) -> int:
        if k is not None and k < 1:
            raise SpError(f"`k` must be at least 1 patch; got {k}.")
        return min(self.top_count if k is None else k, held)

    def _extremes(self, side: str, unit: Unit | str, k: int | None) -> tuple[Patch, ...]:
        name, channel = self._find(unit)
        value, image, position = (
            self._arrays(name)[f"{side}_{what}"][channel] for what in ("value", "image", "position")
        )
        if k is not None and k > self.top_count:
            raise SpError(
                f"This index keeps {self.top_count} patches a unit; got k = {k}. Build one with a larger `top`."
            )
        count = self._count(k, int((image >= 0).sum()))
        return self._patches(unit, value[:count], image[:count], position[:count])

    def _patches(
        self, unit: Unit | str, values: NDArray[Any], images: NDArray[Any], positions: NDArray[Any]
    ) -> tuple[Patch, ...]:
        unit = Unit.parse(unit) if isinstance(unit, str) else unit
        row = self._rows[unit.layer]
        shape, image_size = row["shape"], self.input_size[1:]
        percentiles = self._percentiles(unit, values.astype(np.float64))
        whole = Box(0, image_size[0], 0, image_size[1])
        found = []
        for value, image, position, percentile in zip(values, images, positions, percentiles, strict=True):
            place = divmod(int(position), shape[2]) if len(shape) == 3 else None
            law, clipped = whole, whole
            if place is not None and "field" in row:
                law, clipped = box(row["field"], unit.channel, place[0], place[1], image_size)
            found.append(
                Patch(
                    unit=Unit(unit.layer, unit.channel, place),
                    image=int(image),
                    label=int(self._labels.get(int(image), -1)),
                    activation=float(value),
                    percentile=float(percentile),
                    box=clipped,
                    field=law,
                    exact=row.get("field", {}).get("status") != "partial",
                )
            )
        return tuple(found)

    def _percentiles(self, unit: Unit | str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        name, channel = self._find(unit)
        if not self.images:
            return np.full(len(values), np.nan)
        arrays = {what: array[channel] for what, array in self._arrays(name).items() if what != "class_sum"}
        return percentiles(arrays, self.images, values)

    def __repr__(self) -> str:
        seen = f"{self.images} images of {self.dataset['name']}"
        return f"PatchIndex({self.network['name']}, {seen}, {len(self.layers)} layers)"


def table(patches: Sequence[Patch], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One plain row a patch, for CSV and JSON."""
    return [
        {
            "unit": f"{patch.unit.layer}:{patch.unit.channel}",
            "rank": rank,
            "image": patch.image,
            "class": classes[patch.label] if 0 <= patch.label < len(classes) else "",
            "activation": patch.activation,
            "percentile": patch.percentile,
            "y": patch.position[0] if patch.position else None,
            "x": patch.position[1] if patch.position else None,
            "box_top": patch.box.y0,
            "box_left": patch.box.x0,
            "box_bottom": patch.box.y1,
            "box_right": patch.box.x1,
        }
        for rank, patch in enumerate(patches)
    ]
