"""Downloads of the sources' dumps."""
