"""Two checkpoints of one architecture, tensor by tensor: what training, fine-tuning or pruning changed.

Tensors are matched by name, so nothing is run, and checkpoints of which only the weights are known can be compared too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sp_core.errors import SpError
from sp_core.network import Network

STATUSES = ("unchanged", "changed", "reshaped", "only in the first", "only in the second")
STATISTICS = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_CHUNK = 2**22  # numbers that are held in float64 at a time


@dataclass(frozen=True)
class TensorChange:
    """What became of one tensor: ``a`` in the first checkpoint, ``b`` in the second.

    Attributes:
        name: of the tensor, ``"layer1.0.conv1.weight"``.
        layer: the part that holds it, ``"layer1.0.conv1"``; "" for the network itself.
        kind: ``"weight"`` (anything that is learnt) or ``"statistics"`` (of batch normalisation, which are counted).
        status: one of ``STATUSES``; ``"unchanged"`` is bit for bit (NaN equals NaN).
        shape, other_shape: of ``a`` and ``b``; None where there is none.
        relative: ‖b − a‖ / ‖a‖; infinite where only ‖a‖ is 0, NaN where the shapes differ.
        cosine: of the angle between a and b, 1 where they point the same way; NaN where one is 0.
        largest: max |b − a|; NaN where the shapes differ.
        squares: (‖a‖², ‖b‖², ‖b − a‖², a·b), of which the totals are made.
    """

    name: str
    layer: str
    kind: str
    status: str
    shape: tuple[int, ...] | None
    other_shape: tuple[int, ...] | None
    relative: float = math.nan
    cosine: float = math.nan
    largest: float = math.nan
    squares: tuple[float, float, float, float] = (math.nan,) * 4


@dataclass(frozen=True)
class LayerChange:
    """What became of the tensors of one layer, taken together as one long vector.

    Attributes:
        layer: its name.
        status: ``"unchanged"`` when all learnt tensors are bit for bit the same, ``"only in the …"`` when none has a
            partner, ``"reshaped"`` when any has another shape, else ``"changed"``.
        relative, cosine, largest: as of :class:`TensorChange`, of the learnt tensors that have a partner.
        statistics: ‖b − a‖ / ‖a‖ of the running means and variances; NaN where there are none.
        parameters: how many learnt numbers were compared.
    """

    layer: str
    status: str
    relative: float
    cosine: float
    largest: float
    statistics: float
    parameters: int


@dataclass(frozen=True)
class Comparison:
    """What changed from one checkpoint to another.

    Attributes:
        first, second: names of the networks.
        fingerprints: of the two.
        tensors: every tensor of either, in execution order where that is known, else in the file's.
        layers: the layers that hold them, in the same order.
        relative, cosine, largest: of all learnt tensors that have a partner, taken as one vector.
        statistics: relative change of all statistics of batch normalisation; NaN where there are none.
    """

    first: str
    second: str
    fingerprints: tuple[str, str]
    tensors: tuple[TensorChange, ...]
    layers: tuple[LayerChange, ...]
    relative: float
    cosine: float
    largest: float
    statistics: float

    @property
    def frozen(self) -> tuple[str, ...]:
        """The layers whose learnt tensors stayed the same bit for bit."""
        return tuple(layer.layer for layer in self.layers if layer.status == "unchanged" and layer.parameters)

    @property
    def identical(self) -> bool:
        """Whether no tensor of either differs in any bit."""
        return all(tensor.status == "unchanged" for tensor in self.tensors)

    def count(self, status: str) -> int:
        """How many tensors have this status."""
        return sum(tensor.status == status for tensor in self.tensors)

    def rows(self) -> list[dict[str, Any]]:
        """One plain row a tensor, for a table or CSV; what cannot be had is None."""
        return [
            {
                "tensor": tensor.name,
                "layer": tensor.layer,
                "kind": tensor.kind,
                "status": tensor.status,
                "shape": _words(tensor.shape),
                "other shape": _words(tensor.other_shape),
                "relative change": _finite(tensor.relative),
                "cosine": _finite(tensor.cosine),
                "largest change": _finite(tensor.largest),
            }
            for tensor in self.tensors
        ]

    def sentences(self) -> list[str]:
        """What a person would say of it, most important first."""
        learnt = [layer for layer in self.layers if layer.parameters]
        if self.identical:
            return [f"Every tensor of {self.second} is bit for bit that of {self.first}."]
        said = []
        if math.isfinite(self.relative):
            share = _share(self.relative)
            said.append(f"All weights taken together moved by {share} of their length (cosine {self.cosine:.4f}).")
        if self.frozen:
            shown = ", ".join(self.frozen[:3]) + (", …" if len(self.frozen) > 3 else "")
            said.append(f"{len(self.frozen)} of {len(learnt)} layers are bit for bit the same: frozen ({shown}).")
        moved = [layer for layer in learnt if layer.relative > 0]
        if moved:
            most = max(moved, key=lambda layer: layer.relative)
            said.append(f"{most.layer or 'the network itself'} moved most, by {_share(most.relative)} of its length.")
        for status, words in (
            ("reshaped", "have another shape"),
            ("only in the first", f"are only in {self.first}"),
            ("only in the second", f"are only in {self.second}"),
        ):
            names = [tensor.name for tensor in self.tensors if tensor.status == status]
            if names:
                shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                said.append(f"{len(names)} tensors {words} ({shown}).")
        if self.statistics > 0:
            said.append(f"The statistics of batch normalisation moved by {_share(self.statistics)}.")
        return said


def compare(net: Network, other: Network) -> Comparison:
    """What changed from ``net`` to ``other``, matched by the names of their tensors.

    Raises:
        SpError: they have no tensor of the same name.

    >>> import torch
    >>> from torch import nn
    >>> a = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), name="a", input_size=(3, 8, 8))
    >>> b = Network(a.clone(), name="b", input_size=(3, 8, 8))
    >>> compare(a, b).frozen, compare(a, b).relative
    (('0',), 0.0)
    """
    mine, theirs = _tensors(net), _tensors(other)
    if not mine.keys() & theirs.keys():
        raise SpError(
            f"{net.name} and {other.name} have no tensor of the same name ({_first(mine)}; {_first(theirs)}), so there "
            "is nothing to compare; choose two checkpoints of one architecture."
        )
    order = [*_in_order(net, mine), *(name for name in _in_order(other, theirs) if name not in mine)]
    tensors = tuple(_change(name, mine.get(name), theirs.get(name)) for name in order)
    layers = tuple(
        _layer(layer, [tensor for tensor in tensors if tensor.layer == layer])
        for layer in dict.fromkeys(tensor.layer for tensor in tensors)
    )
    learnt = [tensor for tensor in tensors if tensor.kind == "weight"]
    counted = [tensor for tensor in tensors if tensor.kind == "statistics"]
    relative, cosine, largest = _together(learnt)
    return Comparison(
        net.name,
        other.name,
        (net.fingerprint, other.fingerprint),
        tensors,
        layers,
        relative,
        cosine,
        largest,
        _together(counted)[0],
    )


def _tensors(net: Network) -> dict[str, Tensor]:
    state = net.module.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


def _first(tensors: Mapping[str, Tensor]) -> str:
    names = list(tensors)
    return ", ".join(names[:2]) + (" …" if len(names) > 2 else "")


def _in_order(net: Network, tensors: Iterable[str]) -> list[str]:
    """The names of ``tensors`` as the layers that hold them run; without a graph, as in the file."""
    names = list(tensors)
    if not net.has_graph:
        return names
    try:
        place = {layer.module: i for i, layer in reversed(list(enumerate(net.layers)))}
    except SpError:  # it does not run at this size; the weights are there all the same
        return names
    return sorted(names, key=lambda name: place.get(name.rpartition(".")[0], -1))


def _change(name: str, a: Tensor | None, b: Tensor | None) -> TensorChange:
    layer, _, leaf = name.rpartition(".")
    kind = "statistics" if leaf in STATISTICS else "weight"
    shape = tuple(a.shape) if a is not None else None
    other_shape = tuple(b.shape) if b is not None else None
    if a is None or b is None or shape != other_shape:
        status = (
            "reshaped" if a is not None and b is not None else "only in the " + ("first" if b is None else "second")
        )
        return TensorChange(name, layer, kind, status, shape, other_shape)
    same, largest = True, 0.0
    sums = [0.0] * 4
    for one, two in _chunks(a, b):
        same = same and torch.equal(one.nan_to_num(0.0), two.nan_to_num(0.0)) and torch.equal(one.isnan(), two.isnan())
        difference = two - one
        pairs = ((one, one), (two, two), (difference, difference), (one, two))
        sums = [total + float(x @ y) for total, (x, y) in zip(sums, pairs, strict=True)]
        largest = max(largest, float(difference.abs().max())) if not math.isnan(largest) else largest
        largest = math.nan if bool(difference.isnan().any()) else largest
    squares = (sums[0], sums[1], sums[2], sums[3])
    status = "unchanged" if same else "changed"
    return TensorChange(
        name, layer, kind, status, shape, other_shape, _relative(squares), _cosine(squares), largest, squares
    )


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    one, two = a.detach().reshape(-1), b.detach().reshape(-1)
    for start in range(0, one.numel(), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield one[part].to("cpu", torch.float64), two[part].to("cpu", torch.float64)


def _relative(squares: tuple[float, float, float, float]) -> float:
    before, _, moved, _ = squares
    if moved == 0:
        return 0.0
    return math.sqrt(moved / before) if before else (math.nan if math.isnan(moved) else math.inf)


def _cosine(squares: tuple[float, float, float, float]) -> float:
    before, after, moved, product = squares
    if moved == 0 and before > 0:
        return 1.0
    scale = math.sqrt(before) * math.sqrt(after)
    return max(-1.0, min(1.0, product / scale)) if scale else math.nan


def _together(tensors: list[TensorChange]) -> tuple[float, float, float]:
    """Relative change, cosine and largest change of tensors as one vector; NaN where none has a partner."""
    some = [tensor for tensor in tensors if tensor.status in {"unchanged", "changed"}]
    if not some:
        return math.nan, math.nan, math.nan
    sums = [math.fsum(tensor.squares[i] for tensor in some) for i in range(4)]
    squares = (sums[0], sums[1], sums[2], sums[3])
    largest = [tensor.largest for tensor in some]
    return _relative(squares), _cosine(squares), math.nan if any(map(math.isnan, largest)) else max(largest)


def _layer(name: str, tensors: list[TensorChange]) -> LayerChange:
    learnt = [tensor for tensor in tensors if tensor.kind == "weight"]
    counted = [tensor for tensor in tensors if tensor.kind == "statistics"]
    found = {tensor.status for tensor in learnt or tensors}
    alone = [status for status in STATUSES[3:] if found == {status}]
    status = next(iter(alone), "reshaped" if "reshaped" in found else "changed")
    if found == {"unchanged"}:
        status = "unchanged"
    paired = [tensor for tensor in learnt if tensor.status in {"unchanged", "changed"}]
    parameters = sum(math.prod(tensor.shape or ()) for tensor in paired)
    return LayerChange(name, status, *_together(learnt), _together(counted)[0], parameters)


def _words(shape: tuple[int, ...] | None) -> str | None:
    return None if shape is None else "×".join(map(str, shape)) or "a number"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _share(value: float) -> str:
    """A relative change in words: per cent where that reads well."""
    if value >= 10 or not math.isfinite(value):
        return f"{value:.3g} ×"
    return f"{value:.1%}" if value >= 0.001 else f"{value:.1e}"
