"""Weight matrices: their spectra, what survives at low rank, their symmetries, and the identity in them.

>>> import torch, sp_core as sp
>>> net = sp.Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5)),
...                  name="tiny", input_size=(3, 8, 8))
>>> {name: len(values) for name, values in sp.singular_values(net).items()}
{'0.weight': 4, '2.weight': 5}
"""

from sp_core.weights.alone import site_alone
from sp_core.weights.compression import Compressed, Cut, allot, compress, open_compressed
from sp_core.weights.connections import Map, connections, maps
from sp_core.weights.constrained import Constrained, Constraint, constrained, plain
from sp_core.weights.covariance import Covariance, covariance_steps
from sp_core.weights.dirac import Dirac, delta, identity_shares
from sp_core.weights.folding import FoldedNetwork, Folding, folded, folding
from sp_core.weights.grouped import Grouping, energies, grouping_steps
from sp_core.weights.low_rank import Curve, Factored, Site, available, curve, curves, factor, rebuildable, site
from sp_core.weights.matrices import Weight, find, matrices, weights
from sp_core.weights.operator import MATRICES
from sp_core.weights.over_epochs import Moment, Ranks, moment, over_epochs, unreadable
from sp_core.weights.random_spectra import Band, band_of, random_band
from sp_core.weights.schemes import SCHEMES
from sp_core.weights.spectra import (
    Spectrum,
    cost,
    effective_rank,
    energy_rank,
    read_spectra,
    singular_values,
    spectra_so_far,
    spectrum_steps,
    stable_rank,
)
from sp_core.weights.statistics import NormStatistics, norm_statistics
from sp_core.weights.symmetry import KINDS, Symmetry, project, projected, symmetries
from sp_core.weights.tail import Tail, power_law_tail
from sp_core.weights.trial import Effect, Timing, Trial, effect, layer_input, replaced, time_layers, timing, trial_steps

__all__ = [
    "KINDS",
    "MATRICES",
    "SCHEMES",
    "Band",
    "Compressed",
    "Constrained",
    "Constraint",
    "Covariance",
    "Curve",
    "Cut",
    "Dirac",
    "Effect",
    "Factored",
    "FoldedNetwork",
    "Folding",
    "Grouping",
    "Map",
    "Moment",
    "NormStatistics",
    "Ranks",
    "Site",
    "Spectrum",
    "Symmetry",
    "Tail",
    "Timing",
    "Trial",
    "Weight",
    "allot",
    "available",
    "band_of",
    "compress",
    "connections",
    "constrained",
    "cost",
    "covariance_steps",
    "curve",
    "curves",
    "delta",
    "effect",
    "effective_rank",
    "energies",
    "energy_rank",
    "factor",
    "find",
    "folded",
    "folding",
    "grouping_steps",
    "identity_shares",
    "layer_input",
    "maps",
    "matrices",
    "moment",
    "norm_statistics",
    "open_compressed",
    "over_epochs",
    "plain",
    "power_law_tail",
    "project",
    "projected",
    "random_band",
    "read_spectra",
    "rebuildable",
    "replaced",
    "singular_values",
    "site",
    "site_alone",
    "spectra_so_far",
    "spectrum_steps",
    "stable_rank",
    "symmetries",
    "time_layers",
    "timing",
    "trial_steps",
    "unreadable",
    "weights",
]
