"""Audiences of each origin, from draft to deletion."""
