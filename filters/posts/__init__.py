"""Render forum posts as text."""
