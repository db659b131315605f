"""Erasure jobs: asked for, and done."""
