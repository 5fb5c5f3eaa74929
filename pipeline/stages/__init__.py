"""The stages of a run, with one file per stage. `pipeline/graph.py` has their order."""
