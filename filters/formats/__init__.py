"""Readers of file formats: archives, compression, tables, dumps."""
