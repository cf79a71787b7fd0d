"""Structural Priors: look inside convolutional networks.

>>> import sp_core as sp
>>> net = sp.load("bundled:textures-alexnet")
>>> net.layers[0].name, net.layers[0].output_shape
('features.0', (64, 29, 29))

Everything public is a name of this package, imported when it is first used: training on a bare GPU machine must not
need plotly, and ``import sp_core`` must be quick.
"""

import importlib
import os
from typing import Any

# Threads that spin while they wait make a shared machine 5 to 25 times slower; this must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No module has the name of a public function: importing it would put the module in the function's place.
_HOME = {
    "SpError": "errors",
    "Network": "network",
    "Unit": "network",
    "Layer": "trace",
    "open_image": "images",
    "predict": "network",
    "activations": "capture",
    "load": "checkpoints",
    "training_run": "checkpoints",
    "describe": "card",
    "compare": "comparison",
    "backprop": "rules",
    "attribute": "attribution",
    "receptive_fields": "receptive_field",
    "ReceptiveField": "receptive_field",
    "complexity": "counts",
    "Complexity": "counts",
    "singular_values": "weights",
    "build_patch_index": "patches",
    "PatchIndex": "patches",
    "build_features": "nearest",
    "neighbours": "nearest",
    "ascend": "synthesis",
    "dream": "synthesis",
    "AscentSettings": "synthesis",
    "DreamSettings": "synthesis",
}
_ROOMS = {
    "parameterizations",
    "zoo",
    "datasets",
    "checkpoints",
    "figures",
    "filters",
    "weights",
    "patches",
    "nearest",
    "synthesis",
    "training",
    "images",
}

__all__ = sorted({*_HOME, *_ROOMS})  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sp_core.{_HOME[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"sp_core.{name}")
    raise AttributeError(f"module 'sp_core' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(__all__)
