"""Shared by lists of the API: connections and filters."""
