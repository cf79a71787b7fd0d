"""The parts of the page on neighbours."""
