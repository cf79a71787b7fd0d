"""The views of the page on weight matrices, one file each, and what they share."""
