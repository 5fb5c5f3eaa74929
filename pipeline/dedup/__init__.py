"""The stages that remove duplicate documents: signatures, pairs, clusters, survivors, and measurement of recall."""
