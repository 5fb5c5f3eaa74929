"""Classify and clean files of source code."""
