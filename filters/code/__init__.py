"""Rules for files of source code."""
