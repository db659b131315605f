"""Queries over the profiles of a sandbox: explanations, lists, counts, overlaps and changes."""
