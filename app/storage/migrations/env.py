"""Alembic's entry point: runs the migrations inside the transaction that `migrate` has opened and locked."""

from alembic import context

import app.storage.tables  # noqa: F401  (registers the tables)
from app.storage.columns import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    # SQLite alters a table by rebuilding it, which Alembic calls "batch" mode.
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
