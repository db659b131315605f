"""The spine: merge policies, datasets, audiences, definitions and segment jobs.

Migrations define their own types, so that later changes of the tables' code do not affect them. They cannot be undone.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.String()
SORTABLE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
LIVE = sa.text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", SORTABLE, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("identity_column", TEXT, nullable=True),
        sa.Column("namespace", TEXT, nullable=True),
        sa.Column("timestamp_column", TEXT, nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_dataset"),
        sa.UniqueConstraint("organisation", "sandbox", "name", name="uq_dataset_organisation_sandbox_name"),
    )
    op.create_index(
        "ix_dataset_organisation_sandbox_created_at_id", "dataset", ["organisation", "sandbox", "created_at", "id"]
    )

    op.create_table(
        "job_bucket",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("profiles", sa.BigInteger(), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "job_id", "bucket", name="pk_job_bucket"),
    )
    op.create_table(
        "job_update",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "job_id", "sequence", name="pk_job_update"),
    )
    op.create_index("ix_job_update_organisation_sandbox_at", "job_update", ["organisation", "sandbox", "at"])

    op.create_table(
        "merge_policy",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", SORTABLE, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("identity_graph", TEXT, nullable=False),
        sa.Column("datasets", JSON, nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("last_modified_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_merge_policy"),
    )
    op.create_index(
        "ix_merge_policy_organisation_sandbox_created_at_id",
        "merge_policy",
        ["organisation", "sandbox", "created_at", "id"],
    )
    op.create_index(
        "uq_merge_policy_default",
        "merge_policy",
        ["organisation", "sandbox"],
        unique=True,
        sqlite_where=sa.text("is_default"),
        postgresql_where=sa.text("is_default"),
    )

    op.create_table(
        "segment_job",
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
        sa.Column("all_definitions", sa.Boolean(), nullable=False),
        sa.Column("evaluated_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_segment_job"),
        sa.UniqueConstraint(
            "organisation", "sandbox", "idempotency_key", name="uq_segment_job_organisation_sandbox_idempotency_key"
        ),
    )
    op.create_index(
        "ix_segment_job_live",
        "segment_job",
        ["organisation", "sandbox", "status", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_index(
        "ix_segment_job_organisation_sandbox_created_at_id",
        "segment_job",
        ["organisation", "sandbox", "created_at", "id"],
    )
    op.create_index(
        "ix_segment_job_organisation_sandbox_schedule_id_created_at",
        "segment_job",
        ["organisation", "sandbox", "schedule_id", "created_at"],
    )
    op.create_index(
        "ix_segment_job_organisation_sandbox_started_at", "segment_job", ["organisation", "sandbox", "started_at"]
    )
    op.create_index(
        "ix_segment_job_organisation_sandbox_updated_at_id",
        "segment_job",
        ["organisation", "sandbox", "updated_at", "id"],
    )

    op.create_table(
        "audience",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("audience_id", TEXT, nullable=False),
        sa.Column("name", SORTABLE, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("lifecycle_state", TEXT, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("evaluates_batch", sa.Boolean(), nullable=False),
        sa.Column("evaluates_streaming", sa.Boolean(), nullable=False),
        sa.Column("evaluates_edge", sa.Boolean(), nullable=False),
        sa.Column("exclude_opt_out", sa.Boolean(), nullable=False),
        sa.Column("merge_policy_id", TEXT, nullable=True),
        sa.Column("dataset_id", TEXT, nullable=True),
        sa.Column("ttl_in_days", sa.Integer(), nullable=True),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("folder_id", TEXT, nullable=True),
        sa.Column("audience_meta", JSON, nullable=True),
        sa.Column("linked_audience_ref", JSON, nullable=True),
        sa.Column("is_system", sa.Boolean(), nullable=False),
        sa.Column("save_segment_membership", sa.Boolean(), nullable=False),
        sa.Column("override_performance_warnings", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("last_modified_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("total_profiles", sa.BigInteger(), nullable=True),
        sa.Column("by_namespace", JSON, nullable=False),
        sa.Column("metrics_updated_at", INSTANT, nullable=True),
        sa.Column("metrics_job_id", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "merge_policy_id"],
            ["merge_policy.organisation", "merge_policy.sandbox", "merge_policy.id"],
            name="fk_audience_organisation_sandbox_merge_policy_id",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_audience"),
        sa.UniqueConstraint(
            "organisation",
            "sandbox",
            "namespace",
            "audience_id",
            name="uq_audience_organisation_sandbox_namespace_audience_id",
        ),
    )
    op.create_index(
        "ix_audience_organisation_sandbox_created_at_id", "audience", ["organisation", "sandbox", "created_at", "id"]
    )
    op.create_index(
        "ix_audience_organisation_sandbox_folder_id_id", "audience", ["organisation", "sandbox", "folder_id", "id"]
    )
    op.create_index(
        "ix_audience_organisation_sandbox_merge_policy_id", "audience", ["organisation", "sandbox", "merge_policy_id"]
    )
    op.create_index("ix_audience_organisation_sandbox_name_id", "audience", ["organisation", "sandbox", "name", "id"])
    op.create_index(
        "ix_audience_organisation_sandbox_total_profiles_id",
        "audience",
        ["organisation", "sandbox", "total_profiles", "id"],
    )
    op.create_index(
        "ix_audience_organisation_sandbox_updated_at_id", "audience", ["organisation", "sandbox", "updated_at", "id"]
    )
    op.create_index(
        "uq_audience_definition_name",
        "audience",
        ["organisation", "sandbox", "name"],
        unique=True,
        sqlite_where=sa.text("type = 'SEGMENT_DEFINITION'"),
        postgresql_where=sa.text("type = 'SEGMENT_DEFINITION'"),
    )

    op.create_table(
        "batch",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("dataset_id", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("rejected_rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("segment_ids", JSON, nullable=False),
        sa.Column("lease_owner", TEXT, nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "dataset_id"],
            ["dataset.organisation", "dataset.sandbox", "dataset.id"],
            name="fk_batch_organisation_sandbox_dataset_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_batch"),
    )
    op.create_index(
        "ix_batch_loading",
        "batch",
        ["organisation", "sandbox", "lease_until"],
        sqlite_where=sa.text("status = 'LOADING'"),
        postgresql_where=sa.text("status = 'LOADING'"),
    )
    op.create_index(
        "ix_batch_organisation_sandbox_dataset_id_created_at_id",
        "batch",
        ["organisation", "sandbox", "dataset_id", "created_at", "id"],
    )

    op.create_table(
        "segment_job_definition",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("definition_id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("expression", TEXT, nullable=False),
        sa.Column("merge_policy_id", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("profile_count", sa.BigInteger(), nullable=True),
        sa.Column("by_namespace", JSON, nullable=False),
        sa.Column("by_status", JSON, nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "job_id"],
            ["segment_job.organisation", "segment_job.sandbox", "segment_job.id"],
            name="fk_segment_job_definition_organisation_sandbox_job_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "job_id", "definition_id", name="pk_segment_job_definition"),
    )
    op.create_index(
        "ix_segment_job_definition_last",
        "segment_job_definition",
        ["organisation", "sandbox", "definition_id", "created_at", "job_id"],
    )

    op.create_table(
        "definition",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("expression", TEXT, nullable=False),
        sa.Column("canonical", TEXT, nullable=False),
        sa.Column("schema_name", TEXT, nullable=False),
        sa.Column("membership_run_id", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            name="fk_definition_organisation_sandbox_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_definition"),
    )
    op.create_table(
        "definition_dependency",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("definition_id", TEXT, nullable=False),
        sa.Column("depends_on_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "definition_id"],
            ["definition.organisation", "definition.sandbox", "definition.id"],
            name="fk_definition_dependency_organisation_sandbox_definition_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "depends_on_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            name="fk_definition_dependency_organisation_sandbox_depends_on_id",
        ),
        sa.PrimaryKeyConstraint(
            "organisation", "sandbox", "definition_id", "depends_on_id", name="pk_definition_dependency"
        ),
    )
    op.create_index(
        "ix_definition_dependency_dependents",
        "definition_dependency",
        ["organisation", "sandbox", "depends_on_id", "definition_id"],
    )

    op.create_table(
        "definition_version",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("definition_id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("expression", TEXT, nullable=False),
        sa.Column("canonical", TEXT, nullable=False),
        sa.Column("merge_policy_id", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "definition_id"],
            ["definition.organisation", "definition.sandbox", "definition.id"],
            name="fk_definition_version_organisation_sandbox_definition_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "definition_id", "version", name="pk_definition_version"),
    )
