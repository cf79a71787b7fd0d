"""What batch normalisation has learnt: the statistics of its input and the scale and shift it gives instead.

In evaluation a batch normalisation maps every channel ``x`` to ``scale · (x - mean) / √(variance + ε) + shift`` (Ioffe
and Szegedy 2015), with the running mean and variance of training. All four are in the file, so they can be read where
nothing can be run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sp_core.errors import SpError
from sp_core.network import Network

QUANTITIES = ("mean", "variance", "scale", "shift")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # the quantiles of a summary
OFF = 1e-3  # a scale below this is a channel that says the same whatever it is given


@dataclass(frozen=True, eq=False)
class NormStatistics:
    """The numbers of one batch normalisation, one a channel; float64 on the CPU.

    Attributes:
        layer: its name.
        mean, variance: running statistics of its input, ``[channels]``; None where none are kept.
        scale, shift: what it multiplies with and adds (γ and β), ``[channels]``; None where it learns none.
        epsilon: what is added to the variance. Of weights without a network the usual 1e-5.
    """

    layer: str
    mean: Tensor | None
    variance: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    epsilon: float

    @property
    def channels(self) -> int:
        """How many channels it normalises; 0 where it holds nothing."""
        return max((len(values) for values in map(self.get, QUANTITIES) if values is not None), default=0)

    def get(self, quantity: str) -> Tensor | None:
        """One of :data:`QUANTITIES`."""
        known: Tensor | None = getattr(self, quantity)
        return known

    def summary(self, quantity: str) -> tuple[float, ...] | None:
        """Minimum, quartiles and maximum over the finite values; None where there are none.

        >>> row = NormStatistics("bn", torch.tensor([0.0, 1, 2, 3, 4]).double(), None, None, None, 1e-5)
        >>> row.summary("mean"), row.summary("scale")
        ((0.0, 1.0, 2.0, 3.0, 4.0), None)
        """
        values = self.get(quantity)
        values = values[values.isfinite()] if values is not None else None
        if values is None or not len(values):
            return None
        return tuple(torch.quantile(values.double(), torch.tensor(SHARES, dtype=torch.float64)).tolist())

    @property
    def gain(self) -> Tensor | None:
        """``scale / √(variance + ε)``: what a channel is multiplied with in evaluation; None without a variance."""
        if self.variance is None:
            return None
        unit = (self.variance + self.epsilon).rsqrt()
        return unit if self.scale is None else self.scale * unit

    @property
    def off(self) -> int:
        """Channels whose scale is below 0.001 in magnitude: what they say hardly depends on what they are given."""
        return 0 if self.scale is None else int((self.scale.abs() < OFF).sum())


def norm_statistics(net: Network) -> tuple[NormStatistics, ...]:
    """The numbers of every batch normalisation in execution order; where only weights are known, in the file's.

    Raises:
        SpError: there is none.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), name="two", input_size=(3, 8, 8))
    >>> [(row.layer, row.summary("variance")) for row in norm_statistics(net)]
    [('1', (1.0, 1.0, 1.0, 1.0, 1.0))]
    """
    names = [name for name, part in net.module.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if net.has_graph:
        order = {layer.module: index for index, layer in reversed(list(enumerate(net.layers)))}
        names.sort(key=lambda name: order.get(name, len(order)))
    rows = tuple(row for row in (_of(name, net.module.get_submodule(name)) for name in names) if row.channels)
    if not rows:
        raise SpError(
            f"{net.name} has no batch normalisation, so there are no statistics to show; "
            "its weight matrices are under Spectra and Symmetry."
        )
    return rows


def _of(name: str, module: nn.Module) -> NormStatistics:
    def plain(attribute: str) -> Tensor | None:
        values = getattr(module, attribute, None)
        if not isinstance(values, Tensor) or values.ndim != 1 or not values.is_floating_point():
            return None
        return values.detach().to("cpu", torch.float64)

    mean, variance = plain("running_mean"), plain("running_var")
    return NormStatistics(name, mean, variance, plain("weight"), plain("bias"), float(getattr(module, "eps", 1e-5)))
