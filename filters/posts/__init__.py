"""Posts of Stack Exchange as text."""
