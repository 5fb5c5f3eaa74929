"""The paper's benchmarks: their tasks, their data, and the scores of a model on them."""
