"""Detects and removes unused and damaged files."""
