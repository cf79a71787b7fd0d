"""The two views of the page on pictures that a network makes."""
