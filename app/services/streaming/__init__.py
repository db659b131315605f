"""Streaming evaluation: definitions are evaluated as soon as a batch is committed."""
