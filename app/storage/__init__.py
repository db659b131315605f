"""Rows, migrations, the queue and its wake-ups in SQLite or PostgreSQL; knows no rules of the domain."""
