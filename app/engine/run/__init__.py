"""Evaluates buckets."""
