"""Benchmarks: `python -m benchmarks NAME` prints one table, beside a peer or a lower bound from the same run."""
