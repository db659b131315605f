"""Jobs: what all kinds share, and one room for each kind."""
