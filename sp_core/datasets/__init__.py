"""Image sets a network can be shown: procedural textures, folders of images, CIFAR-10."""

from sp_core.datasets.source import Dataset, open, select, take
from sp_core.datasets.textures import Textures

__all__ = ["Dataset", "Textures", "open", "select", "take"]
