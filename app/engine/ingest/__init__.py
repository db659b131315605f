"""From a file to the lake."""
