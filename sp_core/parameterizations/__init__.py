"""Ways to write a weight by fewer or better numbers: low rank, symmetric, Dirac, filter groups.

Each is a ``torch.nn.utils.parametrize`` module with its formula, its count of free numbers and its inverse or
projection; ``names()`` lists them, ``entry(name)`` has formula and source.

>>> from torch import nn
>>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
>>> apply(net, "triangular", layers=["2"])[2].weight.shape
torch.Size([8, 8, 3, 3])
>>> free_parameters(net)  # 3·8·9 + 8 + 36·9 + 8
556
>>> fold(net)[2]
Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1))
"""

from sp_core.parameterizations.base import Parameterization
from sp_core.parameterizations.bases import Bases, composite_std
from sp_core.parameterizations.dirac import Dirac, DiracFirst, NCReLU, delta
from sp_core.parameterizations.factored import restructured
from sp_core.parameterizations.folding import fold, fold_norms
from sp_core.parameterizations.groups import Grouped, schedule
from sp_core.parameterizations.low_rank import LowRank
from sp_core.parameterizations.registry import (
    Entry,
    apply,
    entry,
    free_parameters,
    names,
    obstacle,
    parametrized,
)
from sp_core.parameterizations.symmetric import LDL, Average, Eigen, SoftL1, asymmetry
from sp_core.parameterizations.tied import FORMS, Tied, places
from sp_core.parameterizations.unfolding import Step, dirac_parts, folding_steps, own_parts

__all__ = [
    "FORMS",
    "LDL",
    "Average",
    "Bases",
    "Dirac",
    "DiracFirst",
    "Eigen",
    "Entry",
    "Grouped",
    "LowRank",
    "NCReLU",
    "Parameterization",
    "SoftL1",
    "Step",
    "Tied",
    "apply",
    "asymmetry",
    "composite_std",
    "delta",
    "dirac_parts",
    "entry",
    "fold",
    "fold_norms",
    "folding_steps",
    "free_parameters",
    "names",
    "obstacle",
    "own_parts",
    "parametrized",
    "places",
    "restructured",
    "schedule",
]
