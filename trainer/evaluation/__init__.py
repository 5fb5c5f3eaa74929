"""Evaluate models on the benchmarks of LLaMA's paper."""
