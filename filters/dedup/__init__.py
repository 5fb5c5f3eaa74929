"""Algorithms of de-duplication: MinHash, exact similarity, clusters, containment, measurement of recall."""
