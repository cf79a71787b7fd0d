"""The parts of the page on feature maps."""
