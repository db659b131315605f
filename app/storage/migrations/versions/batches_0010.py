"""Batches are sent once: their idempotency keys, and how many rows were there already."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("duplicate_rows", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("batch", sa.Column("idempotency_key", sa.String(), nullable=True))
    op.create_index(
        "ix_batch_idempotency",
        "batch",
        ["organisation", "sandbox", "dataset_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
