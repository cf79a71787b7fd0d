"""A whole network with some of its layers factored: what is lost, what it costs, and the file that loads back.

One layer at a time is in :mod:`sp_core.weights.low_rank`. Here a *plan* names a scheme and a rank for each of several
layers, or a budget is allotted to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sp_core.checkpoints.read import read
from sp_core.checkpoints.sources import from_checkpoint
from sp_core.counts import complexity
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations.factored import put, restructured
from sp_core.parameterizations.recognised import unfactored
from sp_core.weights.low_rank import Curve, Site, factor, site

Plan = Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Cut:
    """One factored layer.

    Attributes:
        layer, scheme, rank: what was done.
        error: ``‖W − Ŵ‖_F / ‖W‖_F``.
        parameters, macs: of the small layers, the shared kernels of ``basis`` once, without the bias.
        parameters_before, macs_before: of the layer as it was.
    """

    layer: str
    scheme: str
    rank: int
    error: float
    parameters: int
    macs: int
    parameters_before: int
    macs_before: int


@dataclass(frozen=True, eq=False)
class Compressed:
    """A network whose layers are really smaller.

    Attributes:
        network: to be asked everything that any network is; what it was made of stays as it was.
        cuts: the factored layers, in the order of the plan.
        parameters, macs: of the whole network, by :func:`sp_core.counts.complexity`, as stored and run.
        parameters_before, macs_before: of the original.
    """

    network: Network
    cuts: tuple[Cut, ...]
    parameters: int
    macs: int
    parameters_before: int
    macs_before: int

    @property
    def plan(self) -> dict[str, tuple[str, int]]:
        """Layer name to scheme and rank."""
        return {cut.layer: (cut.scheme, cut.rank) for cut in self.cuts}

    def file(self) -> bytes:
        """The weights as the bytes of a ``.safetensors`` file; ``sp.load`` and :func:`open_compressed` read it."""
        state = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.network.module.state_dict().items()
        }
        return save(state, {"format": "pt"})

    def card(self) -> dict[str, Any]:
        """The model card beside the file (its name with ``.json``): how the network is fed, and what was factored."""
        net = self.network
        return {
            "name": net.name,
            "input_size": list(net.input_size),
            "mean": list(net.mean) if net.mean is not None else None,
            "std": list(net.std) if net.std is not None else None,
            "classes": list(net.classes) if net.classes is not None else None,
            "factored": {cut.layer: f"{cut.scheme}, rank {cut.rank}, error {cut.error:.4f}" for cut in self.cuts},
        }

    def code(self, source: str, file: str = "compressed.safetensors") -> str:
        """The lines of Python that make the file from ``source`` and load it again."""
        return code(self.plan, f"sp.load({source!r})", file)


def code(plan: Plan, net: str, file: str = "compressed.safetensors") -> str:
    """The lines of Python that compress ``net`` (an expression), write ``file`` and its card, and load it again.

    >>> print(code({"conv1": ("svd", 3)}, 'sp.load("bundled:textures-vgg")').splitlines()[-1])
    again = sp.load('compressed.safetensors')
    """
    layers = ",\n".join(f'    "{layer}": ("{scheme}", {rank})' for layer, (scheme, rank) in plan.items())
    return (
        "import json\nfrom pathlib import Path\n\nimport sp_core as sp\n\n"
        f"net = {net}\nplan = {{\n{layers},\n}}\nsmall = sp.weights.compress(net, plan)\n"
        f"print(small.parameters, small.macs)\nfile = Path({file!r})\nfile.write_bytes(small.file())\n"
        'file.with_suffix(".json").write_text(json.dumps(small.card()))\n'
        f"again = sp.load({file!r})\n"
    )


def compress(net: Network, plan: Plan) -> Compressed:
    """``net`` with each layer of ``plan`` in small layers of that scheme and rank.

    A layer that runs several times counts once in ``cuts``. Schemes: those of
    :func:`~sp_core.weights.low_rank.factor`.

    Raises:
        SpError: the plan is empty, or a layer, scheme or rank does not exist.

    >>> from torch import nn
    >>> layers = (nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 8, 3))
    >>> net = Network(nn.Sequential(*layers), name="two", input_size=(3, 12, 12))
    >>> small = compress(net, {"0": ("separable", 4), "2": ("svd", 2)})
    >>> small.parameters_before, small.parameters, small.network.layers[0].name
    (2376, 708, '0.0')
    """
    if not plan:
        raise SpError("Nothing to compress: the plan names no layer. Give at least one, with its scheme and rank.")
    before = complexity(net)
    module = net.clone()
    cuts = []
    for layer, (scheme, rank) in plan.items():
        place = site(net, layer)
        row = factor(place, scheme, rank)
        module = put(module, place.layer, row.layers)
        cuts.append(Cut(place.layer, scheme, rank, row.error, row.parameters, row.macs, place.parameters, place.macs))
    words = f"{len(cuts)} layer{'s' if len(cuts) > 1 else ''} factored"
    small = replace(net, module=module, name=f"{net.name}, {words}", architecture=None, source=f"{net.source}, {words}")
    after = complexity(small)
    return Compressed(small, tuple(cuts), after.parameters, after.macs, before.parameters, before.macs)


def allot(places: Mapping[str, tuple[Site, list[Curve]]], budget: float) -> dict[str, tuple[str, int]]:
    """Scheme and rank for each layer, so that together they cost at most ``budget`` of their multiply-accumulates.

    What is kept is measured by the product over the layers of the kept energies ``1 − error²`` (Zhang, Zou, He and Sun
    2016, "Accelerating very deep convolutional networks", arXiv:1505.06798, whole-model rank selection: it goes with
    accuracy, while a sum of errors would rather destroy one layer). Each layer gets what minimises
    ``−log(1 − error²) + price · MACs``, one price for all, the lowest that keeps to the budget: then no MAC would keep
    more in another layer.
    A layer for which nothing cheaper is worth it is left out of the plan.

    Args:
        places: the layers, each with its curves from :func:`~sp_core.weights.low_rank.curves`.
        budget: share in (0, 1) of the layers' multiply-accumulates together.

    Raises:
        SpError: the budget is outside (0, 1), or even rank 1 everywhere costs more.
    """
    if not 0 < budget < 1:
        raise SpError(f"The budget is a share of the multiply-accumulates between 0 and 1; got {budget}.")
    total = sum(place.macs for place, _ in places.values())
    options = {layer: _options(place, curves) for layer, (place, curves) in places.items()}
    least = sum(int(macs.min()) for _, macs, _ in options.values())
    if least > budget * total:
        raise SpError(f"Rank 1 everywhere costs {least / total:.1%} of the original; the budget was {budget:.1%}.")

    def chosen(price: float) -> tuple[dict[str, int], int]:
        best = {layer: int((losses + price * macs / total).argmin()) for layer, (losses, macs, _) in options.items()}
        return best, sum(int(options[layer][1][at]) for layer, at in best.items())

    low, high = 1e-6, 1e9  # prices of all the MACs, in units of lost log energy
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if chosen(middle)[1] > budget * total else (low, middle)
    best, cost = chosen(high)
    if cost > budget * total:  # two options of equal price; the cheapest of all is within the budget
        best = {layer: int(macs.argmin()) for layer, (_, macs, _) in options.items()}
    named = {layer: options[layer][2][at] for layer, at in best.items()}
    return {layer: name for layer, name in named.items() if name is not None}


def _options(place: Site, curves: list[Curve]) -> tuple[Tensor, Tensor, list[tuple[str, int] | None]]:
    """Lost log energy, MACs and name of everything the layer could be; first of all, what it is."""
    losses, macs = [torch.zeros(1, dtype=torch.float64)], [torch.tensor([float(place.macs)], dtype=torch.float64)]
    names: list[tuple[str, int] | None] = [None]
    for curve in curves:
        losses.append(-(1 - curve.errors.square()).clamp_min(1e-12).log())
        macs.append(curve.macs.double())
        names += [(curve.scheme, rank) for rank in range(1, len(curve.errors) + 1)]
    return torch.cat(losses), torch.cat(macs), names


def open_compressed(path: str | Path) -> Network:
    """The network in a file that :meth:`Compressed.file` made of a known architecture.

    How it is fed is in the card beside it (:meth:`Compressed.card`); without one it is guessed, as for any file.

    Raises:
        SpError: nothing in the file is factored, or what the small layers make is no known architecture.
    """
    checkpoint = read(Path(path))
    dense, plan = unfactored(checkpoint.tensors)
    if not plan:
        raise SpError(f"No layer of {checkpoint.filename} is factored; open it with sp.load.")
    net = from_checkpoint(
        replace(checkpoint, tensors=dense), f"file {checkpoint.filename}", torch.device("cpu"), Path(path)
    )
    if not net.architecture:
        raise SpError(
            f"The small layers of {checkpoint.filename} make no architecture that is known here; build the network "
            "yourself, then sp.parameterizations.restructured and load_state_dict."
        )
    module = restructured(net.clone(), plan)
    module.load_state_dict(checkpoint.tensors)
    return replace(
        net, module=module, architecture=None, source=f"{net.source}, {len(plan)} layers of {net.architecture} factored"
    )
