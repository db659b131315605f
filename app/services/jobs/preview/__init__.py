"""Previews and their estimates."""
