"""Limits on memory, time and threads, and cancellation; knows no particular work."""
