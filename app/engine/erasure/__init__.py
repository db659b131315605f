"""Erasure of a person: resolves the identities, finds all data, and removes it."""
