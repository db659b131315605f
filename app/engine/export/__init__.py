"""Members of audiences as a Delta table."""
