"""Queries over the profiles of a snapshot: which, how many, in which order, and why; knows no audience rows."""
