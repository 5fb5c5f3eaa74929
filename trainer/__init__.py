"""A compact LLaMA trainer. It reads exactly the data that a corpus manifest describes."""
