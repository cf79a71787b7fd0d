"""The three views of the page on weight matrices."""
