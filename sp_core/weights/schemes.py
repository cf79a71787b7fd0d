"""The schemes of :mod:`sp_core.parameterizations.schemes`, under the name that this room has for them."""

from sp_core.parameterizations.schemes import SCHEMES, Scheme, Stage, compose

__all__ = ["SCHEMES", "Scheme", "Stage", "compose"]
