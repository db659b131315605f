"""Search over audiences, definitions and their folders."""
