"""Engines, tasks, the shuffle: everything about Apache Beam."""
