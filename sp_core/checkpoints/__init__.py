"""Bringing networks in: bytes to tensors (never code), names and shapes to an architecture, a source to a Network.

>>> from sp_core.checkpoints import load
>>> load("zoo:textures-alexnet", device="cpu").architecture
'zoo:textures-alexnet'
"""

# The functions `read` and `identify` stay in the modules of these names: a package cannot hold both.
from sp_core.checkpoints.read import Checkpoint
from sp_core.checkpoints.snapshots import TrainingRun, training_run
from sp_core.checkpoints.sources import bundled_names, load, load_bytes
from sp_core.checkpoints.verdict import Verdict

__all__ = ["Checkpoint", "TrainingRun", "Verdict", "bundled_names", "load", "load_bytes", "training_run"]
