"""``python -m sp_core``: see :mod:`sp_core.cli`."""

import sys

from sp_core.cli import main

sys.exit(main())
