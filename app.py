"""The frame: page table, theme, nothing else. Start it with ``make app``."""

import os

# Before torch is imported: threads that spin while they wait slow a shared machine down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pages.ui import nav

nav.run()
