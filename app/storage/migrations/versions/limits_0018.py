"""Definitions that keep the first of their profiles by a value."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    for name in ("definition", "definition_version", "segment_job_definition"):
        op.add_column(name, sa.Column("kept", JSON, nullable=True))
