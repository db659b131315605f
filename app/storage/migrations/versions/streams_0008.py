"""What streaming evaluation has still to do, and the memberships that it changed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "streaming_turn",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("lease_owner", TEXT, nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("organisation", "sandbox", name="pk_streaming_turn"),
    )
    op.create_table(
        "streaming_batch",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("dataset_id", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "batch_id"],
            ["batch.organisation", "batch.sandbox", "batch.id"],
            name="fk_streaming_batch_organisation_sandbox_batch_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "batch_id", name="pk_streaming_batch"),
    )
    op.create_table(
        "membership_patch",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("bases", JSON, nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "bucket", "turn", name="pk_membership_patch"),
    )
