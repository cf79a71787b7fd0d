"""The parts of the page on receptive fields."""
