"""A layer to rebuild at low rank where only the weights are known: what is lost is exact, what it costs is relative."""

from __future__ import annotations

import torch

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights.low_rank import Site
from sp_core.weights.matrices import find


def site_alone(net: Network, layer: str) -> Site:
    """Like :func:`sp_core.weights.site`, without a forward pass: multiply-accumulates count one position of the output.

    Raises:
        SpError: there is no such layer, or its weights are all zero or not finite.

    >>> from sp_core.checkpoints.loose import loose
    >>> made = loose({"conv.weight": torch.ones(4, 3, 3, 3)}, "a file")
    >>> site_alone(Network(made, confidence="weights-only"), "conv").macs
    108
    """
    row = find(net, layer)
    if row.part is not None:
        raise SpError(f"{row.layer} is part of a {row.kind}; only convolutions and linear layers are rebuilt here.")
    weight = row.tensor.detach().to("cpu", torch.float64)
    if not bool(weight.isfinite().all()) or not bool(weight.any()):
        raise SpError(f"The weights of {row.layer} are all zero or not finite; there is nothing to rebuild.")
    whole = weight if weight.ndim == 4 else weight[:, :, None, None]
    return Site(row.layer, net.module.get_submodule(row.layer), whole, (), (len(weight),))
