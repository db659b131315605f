"""Erasure jobs: request and execution."""
