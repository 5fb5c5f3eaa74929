"""Tools that look into a corpus or change it."""
