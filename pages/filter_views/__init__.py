"""Parts of the page on filters."""
