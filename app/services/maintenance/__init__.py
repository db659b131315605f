"""What keeps the database and the lake in order."""
