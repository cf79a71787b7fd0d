"""Pictures made by a network: gradient ascent and DeepDream.

An objective (what is asked of a picture) × a parametrisation (the coordinates it is moved in) × transforms (what it
must survive) × a loop; each is a file here. After Lucid's decomposition (Olah et al., Distill 2017).
"""

from sp_core.synthesis.deepdream import DreamStep, default_layer, dream, octave_sizes
from sp_core.synthesis.loop import AscentStep, ascend
from sp_core.synthesis.objectives import Direction, Objective
from sp_core.synthesis.settings import AscentSettings, DreamSettings

__all__ = [
    "AscentSettings",
    "AscentStep",
    "Direction",
    "DreamSettings",
    "DreamStep",
    "Objective",
    "ascend",
    "default_layer",
    "dream",
    "octave_sizes",
]
