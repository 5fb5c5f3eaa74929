"""Download the sources' dumps, and pages that Wikipedia cites."""
