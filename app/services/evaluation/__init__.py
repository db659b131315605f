"""Shared by all evaluations: expressions, memberships, progress."""
