"""Erasure jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
LIVE = sa.text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


def upgrade() -> None:
    op.create_table(
        "erasure_job",
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
        sa.Column("trace", sa.String(), nullable=True),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("places", JSON, nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_erasure_job"),
        sa.UniqueConstraint(
            "organisation", "sandbox", "idempotency_key", name="uq_erasure_job_organisation_sandbox_idempotency_key"
        ),
    )
    op.create_index(
        "ix_erasure_job_live",
        "erasure_job",
        ["organisation", "sandbox", "status", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    for columns in (("created_at", "id"), ("updated_at", "id"), ("started_at",), ("schedule_id", "created_at")):
        name = "_".join(("ix_erasure_job_organisation_sandbox", *columns))
        op.create_index(name, "erasure_job", ["organisation", "sandbox", *columns])
