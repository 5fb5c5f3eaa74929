"""Benchmarks. `python -m benchmarks NAME` prints a table that compares this project with a peer or a lower bound."""
