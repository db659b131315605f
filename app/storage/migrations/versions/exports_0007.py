"""Export jobs, the audiences that they write, and which batch is whose."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.String()
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
LIVE = sa.text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")
OF_JOBS = sa.text("job_id IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "export_job",
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
        sa.Column("fields", JSON, nullable=False),
        sa.Column("merge_policy_id", TEXT, nullable=False),
        sa.Column("merge_policy", JSON, nullable=False),
        sa.Column("filter", JSON, nullable=True),
        sa.Column("additional_fields", JSON, nullable=True),
        sa.Column("schema_name", TEXT, nullable=False),
        sa.Column("destination_id", TEXT, nullable=False),
        sa.Column("segment_per_batch", sa.Boolean(), nullable=False),
        sa.Column("evaluate_first", sa.Boolean(), nullable=False),
        sa.Column("waits_for", TEXT, nullable=True),
        sa.Column("committing", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "destination_id"],
            ["dataset.organisation", "dataset.sandbox", "dataset.id"],
            name="fk_export_job_organisation_sandbox_destination_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_export_job"),
        sa.UniqueConstraint(
            "organisation", "sandbox", "idempotency_key", name="uq_export_job_organisation_sandbox_idempotency_key"
        ),
    )
    op.create_index(
        "ix_export_job_live",
        "export_job",
        ["organisation", "sandbox", "status", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    for columns in (
        ("created_at", "id"),
        ("updated_at", "id"),
        ("started_at",),
        ("schedule_id", "created_at"),
        ("destination_id", "created_at"),
    ):
        name = "_".join(("ix_export_job_organisation_sandbox", *columns))
        op.create_index(name, "export_job", ["organisation", "sandbox", *columns])

    op.create_table(
        "export_job_audience",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("audience_id", TEXT, nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("segment_id", TEXT, nullable=False),
        sa.Column("status", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "job_id"],
            ["export_job.organisation", "export_job.sandbox", "export_job.id"],
            name="fk_export_job_audience_organisation_sandbox_job_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "job_id", "audience_id", name="pk_export_job_audience"),
    )
    op.create_index(
        "ix_export_job_audience_jobs",
        "export_job_audience",
        ["organisation", "sandbox", "audience_id", "job_id"],
    )

    op.add_column("batch", sa.Column("job_id", TEXT, nullable=True))
    op.create_index(
        "ix_batch_of_job",
        "batch",
        ["organisation", "sandbox", "job_id", "id"],
        sqlite_where=OF_JOBS,
        postgresql_where=OF_JOBS,
    )
