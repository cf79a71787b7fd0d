"""Nearest neighbours of a picture among the images of a data set: in pixels, and in the features of any layer."""

from sp_core.nearest.build import Progress, build_features
from sp_core.nearest.features import PIXELS, Features, cache_folder
from sp_core.nearest.plan import default_layers
from sp_core.nearest.question import Agreement, Neighbours, agreement, neighbours
from sp_core.nearest.search import nearest

__all__ = [
    "PIXELS",
    "Agreement",
    "Features",
    "Neighbours",
    "Progress",
    "agreement",
    "build_features",
    "cache_folder",
    "default_layers",
    "nearest",
    "neighbours",
]
