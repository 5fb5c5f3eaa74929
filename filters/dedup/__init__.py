"""De-duplication: MinHash, exact similarity, clusters, containment, recall."""
