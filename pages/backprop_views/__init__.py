"""The parts of the page on backprop and attributions."""
