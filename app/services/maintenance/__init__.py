"""Maintenance of the database and the lake."""
