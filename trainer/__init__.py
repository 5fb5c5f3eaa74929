"""A compact LLaMA trainer that reads exactly the data that a corpus manifest describes."""
