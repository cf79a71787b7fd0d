"""The parts of the identity card."""
