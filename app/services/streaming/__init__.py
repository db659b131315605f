"""Streaming evaluation: definitions follow a batch as soon as it has landed."""
