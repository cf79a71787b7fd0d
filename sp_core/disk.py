"""Files that are whole whenever the program is killed, and that one builder at a time writes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of the file ``path``, in one step.

    A builder that is killed in between leaves ``.NAME.NUMBER.part`` beside it; whoever writes next clears it away.
    """
    # The process number keeps two builders from writing into one another's unfinished file.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Let one builder at a time write to ``folder``; a lock of a process that was killed is gone with it."""
    try:
        import fcntl
    except ImportError:  # Windows: two builders of one folder at once are then up to the person
        yield
        return
    name = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"sp-index-{os.getuid()}-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
