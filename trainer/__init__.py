"""A compact LLaMA trainer that consumes exactly what a corpus manifest says."""
