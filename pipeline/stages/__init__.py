"""One file a stage, in the order of a run."""
