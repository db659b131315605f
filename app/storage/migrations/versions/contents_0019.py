"""Batches with an idempotency key know what was sent with it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("content", sa.String(), nullable=True))
