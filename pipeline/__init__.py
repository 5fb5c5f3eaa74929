"""The Beam jobs: sources, stages, the graph that joins them, and the command line."""
