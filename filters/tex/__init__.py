"""Submissions to arXiv as text."""
