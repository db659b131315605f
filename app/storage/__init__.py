"""Tables, migrations, the job queue and change notifications on SQLite or PostgreSQL; contains no domain rules."""
