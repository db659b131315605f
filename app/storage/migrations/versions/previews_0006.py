"""Previews, their estimates and samples."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
LIVE = sa.text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


def upgrade() -> None:
    op.create_table(
        "preview",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("schedule_id", TEXT, nullable=True),
        sa.Column("run_id", TEXT, nullable=True),
        sa.Column("idempotency_key", TEXT, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lost_leases", sa.Integer(), nullable=False),
        sa.Column("lease_owner", TEXT, nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("phase", TEXT, nullable=False),
        sa.Column("fraction", sa.Float(), nullable=False),
        sa.Column("profiles_read", sa.BigInteger(), nullable=False),
        sa.Column("total_profiles", sa.BigInteger(), nullable=False),
        sa.Column("seconds_left", sa.Float(), nullable=True),
        sa.Column("errors", JSON, nullable=False),
        sa.Column("metrics", JSON, nullable=True),
        sa.Column("snapshot", JSON, nullable=True),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=True),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("expression", TEXT, nullable=False),
        sa.Column("merge_policy", JSON, nullable=False),
        sa.Column("graph_type", TEXT, nullable=False),
        sa.Column("exclude_opt_out", sa.Boolean(), nullable=False),
        sa.Column("evaluated_at", INSTANT, nullable=True),
        sa.Column("rows_to_read", sa.BigInteger(), nullable=False),
        sa.Column("profiles_matched", sa.BigInteger(), nullable=False),
        sa.Column("by_namespace", JSON, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_preview"),
    )
    op.create_index(
        "ix_preview_live",
        "preview",
        ["organisation", "sandbox", "status", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    for columns in (("created_at", "id"), ("started_at",)):
        name = "_".join(("ix_preview_organisation_sandbox", *columns))
        op.create_index(name, "preview", ["organisation", "sandbox", *columns])
    op.create_table(
        "preview_sample",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("merge_policy_id", TEXT, nullable=False),
        sa.Column("graph_type", TEXT, nullable=False),
        sa.Column("seed", TEXT, nullable=False),
        sa.Column("total_profiles", sa.BigInteger(), nullable=False),
        sa.Column("drawn_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "merge_policy_id", "graph_type", name="pk_preview_sample"),
    )
