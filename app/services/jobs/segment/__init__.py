"""Segment jobs: request, prepare, run, publish."""
