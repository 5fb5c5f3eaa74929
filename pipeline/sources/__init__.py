"""Readers of the sources: one module per source, the contract and the registry in `base`."""
