"""Jobs: what all kinds share, and one package per kind."""
