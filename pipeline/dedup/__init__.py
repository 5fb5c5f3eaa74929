"""De-duplication of documents: signatures, pairs, clusters, survivors, and the measured recall."""
