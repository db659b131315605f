"""Profiles, and EDGE memberships evaluated on read."""
