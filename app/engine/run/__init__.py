"""Evaluation, bucket by bucket."""
