"""``python -m sp_core``: see :mod:`sp_core.cli`."""

import os
import sys

from sp_core.cli import main

try:
    status = main()
    sys.stdout.flush()
except BrokenPipeError:
    # `… --json | head` closed our standard output: there is nobody left to tell. Python would complain at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 1
sys.exit(status)
