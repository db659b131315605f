"""Exports members of audiences as a Delta table."""
