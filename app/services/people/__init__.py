"""Profiles, and their memberships on the edge."""
