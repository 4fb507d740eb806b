"""Parts of results as escaped HTML, for the page and for reports alike."""
