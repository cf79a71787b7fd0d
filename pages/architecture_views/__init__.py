"""The views of the page of architectures."""
