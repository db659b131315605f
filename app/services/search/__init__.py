"""Search over audiences and definitions, and the folders that they are in."""
