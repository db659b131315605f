"""Shared by all lists: pages, filters, rows."""
