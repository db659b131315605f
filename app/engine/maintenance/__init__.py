"""Files that nobody reads any more, and files that are damaged."""
