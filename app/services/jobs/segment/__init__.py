"""Segment jobs: request, preparation, execution, publication."""
