"""Schedules and what they started."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.String()
SORTABLE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
DUE = sa.text("next_due_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", SORTABLE, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("cron_expression", TEXT, nullable=False),
        sa.Column("all_audiences", sa.Boolean(), nullable=False),
        sa.Column("export", JSON, nullable=True),
        sa.Column("next_due_at", INSTANT, nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("last_modified_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_schedule"),
    )
    for column in ("created_at", "updated_at", "name"):
        op.create_index(
            f"ix_schedule_organisation_sandbox_{column}_id", "schedule", ["organisation", "sandbox", column, "id"]
        )
    op.create_index(
        "ix_schedule_due",
        "schedule",
        ["organisation", "sandbox", "next_due_at"],
        sqlite_where=DUE,
        postgresql_where=DUE,
    )

    op.create_table(
        "schedule_audience",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("schedule_id", TEXT, nullable=False),
        sa.Column("audience_id", TEXT, nullable=False),
        _of_schedule("schedule_audience"),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "audience_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            name="fk_schedule_audience_organisation_sandbox_audience_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "schedule_id", "audience_id", name="pk_schedule_audience"),
    )
    op.create_index(
        "ix_schedule_audience_schedules",
        "schedule_audience",
        ["organisation", "sandbox", "audience_id", "schedule_id"],
    )

    op.create_table(
        "schedule_run",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("schedule_id", TEXT, nullable=False),
        sa.Column("due_at", INSTANT, nullable=True),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=True),
        sa.Column("message", TEXT, nullable=True),
        sa.Column("at", INSTANT, nullable=False),
        _of_schedule("schedule_run"),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_schedule_run"),
        sa.UniqueConstraint(
            "organisation",
            "sandbox",
            "schedule_id",
            "due_at",
            name="uq_schedule_run_organisation_sandbox_schedule_id_due_at",
        ),
    )
    op.create_index("ix_schedule_run_last", "schedule_run", ["organisation", "sandbox", "schedule_id", "at"])


def _of_schedule(table: str) -> sa.ForeignKeyConstraint:
    """A schedule takes its rows with it."""
    return sa.ForeignKeyConstraint(
        ["organisation", "sandbox", "schedule_id"],
        ["schedule.organisation", "schedule.sandbox", "schedule.id"],
        name=f"fk_{table}_organisation_sandbox_schedule_id",
        ondelete="CASCADE",
    )
