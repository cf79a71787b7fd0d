"""The parts of the page on maximally activating patches."""
