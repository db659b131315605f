"""Audiences of every origin, from draft to deletion."""
