"""How much a checkpoint may claim before anything is allocated for it.

Each limit stands in the message of the file that breaks it, with the environment variable that changes it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

from sp_core.errors import SpError

GB = 2**30


@dataclass(frozen=True)
class Limits:
    """The limits of reading; the defaults are generous for convolutional networks.

    Attributes:
        file_gb: size of a file, and of all parts of one in several files, in units of 2^30 bytes.
        weights_gb: memory that the weights may take as float32, same unit; a tied weight counts at each of its names.
        tensors: how many weights there may be.
        members: how many parts a zip archive may have.
        ratio: how many times larger than in the archive an unpacked part may be.
        header_mb: size of what is not weights (pickled names, safetensors header, index), in units of 2^20 bytes.
        steps: how many instructions a pickle may have, or fields an ONNX graph.
        nesting: how deep containers may lie in each other.

    >>> Limits().file_gb, Limits.from_environment({"SP_MAX_FILE_GB": "12"}).file_gb
    (4.0, 12.0)
    """

    file_gb: float = 4.0
    weights_gb: float = 4.0
    tensors: int = 20_000
    members: int = 100_000
    ratio: int = 100
    header_mb: int = 64
    steps: int = 5_000_000
    nesting: int = 100

    @classmethod
    def from_environment(cls, environment: dict[str, str] | None = None) -> Limits:
        """The defaults, changed by ``SP_MAX_FILE_GB``, ``SP_MAX_WEIGHTS_GB``, ``SP_MAX_TENSORS`` and so on.

        Raises:
            SpError: a variable is not a number above zero.
        """
        given = os.environ if environment is None else environment
        changed: dict[str, float] = {}
        for field in fields(cls):
            variable = variable_of(field.name)
            text = given.get(variable, "").strip()
            if not text:
                continue
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if not 0 < number < math.inf:
                raise SpError(f"The environment variable {variable} must be a number above 0; it is '{text[:40]}'.")
            changed[field.name] = number if field.name.endswith("_gb") else max(1, int(number))
        return cls(**changed)  # type: ignore[arg-type]

    def check_file(self, size: int, name: str) -> None:
        """Refuse a file, or all parts of one together, of more bytes than the limit."""
        if size > self.file_gb * GB:
            raise SpError(
                f"{name} has {size / GB:.1f} GB; a checkpoint may have at most {self.file_gb:g} GB"
                f"{raised_by('file_gb')}."
            )

    def check_count(self, count: int, name: str) -> None:
        """Refuse more weights than the limit."""
        if count > self.tensors:
            raise SpError(f"{name} holds {count} tensors; at most {self.tensors} are read{raised_by('tensors')}.")

    def check_weights(self, size: int, name: str) -> None:
        """Refuse weights that would take more memory than the limit."""
        if size > self.weights_gb * GB:
            raise SpError(
                f"{name} holds {size / GB:.1f} GB of weights in float32; at most {self.weights_gb:g} GB are read"
                f"{raised_by('weights_gb')}."
            )


def variable_of(limit: str) -> str:
    """The environment variable that changes a limit: ``SP_MAX_FILE_GB`` for ``file_gb``."""
    return f"SP_MAX_{limit.upper()}"


def raised_by(limit: str) -> str:
    """What a message says about changing a limit.

    >>> raised_by("tensors")
    ' (SP_MAX_TENSORS changes that)'
    """
    return f" ({variable_of(limit)} changes that)"
