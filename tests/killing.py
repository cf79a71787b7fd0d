"""A child process that builds something, and is killed in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time


def killed(code: str, *arguments: str, past: int) -> None:
    """Run Python ``code``, which prints a whole number a step, and kill it a moment after one of at least ``past``."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    try:
        while int(child.stdout.readline()) < past:
            pass
        time.sleep(0.013)  # somewhere inside a step
        child.send_signal(signal.SIGKILL)
    finally:
        child.stdout.close()
        child.wait()
