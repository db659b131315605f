"""Segment jobs over persons: a membership tells of which version of the identity graph its people are."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audience", sa.Column("membership_graph", sa.Integer(), nullable=True))
