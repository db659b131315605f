"""Changes of members in the order of their commits; patches of streaming turns stay for as long as history does."""

import sqlalchemy as sa
from alembic import op

from app.storage.columns import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("published", "changes"):
        op.add_column("streaming_turn", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("membership_patch", sa.Column("newest", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_index(
        "ix_membership_patch_newest",
        "membership_patch",
        ["organisation", "sandbox", "bucket"],
        unique=False,
        sqlite_where=sa.text("newest"),
        postgresql_where=sa.text("newest"),
    )
    op.create_table(
        "membership_change",
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("sandbox", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("audience_id", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("graph", sa.Integer(), nullable=True),
        sa.Column("total_profiles", sa.BigInteger(), nullable=False),
        sa.Column("entered", sa.BigInteger(), nullable=False),
        sa.Column("exited", sa.BigInteger(), nullable=False),
        sa.Column("baseline", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "audience_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            name="fk_membership_change_organisation_sandbox_audience_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "sequence", name="pk_membership_change"),
    )
    op.create_index(
        "ix_membership_change_audience",
        "membership_change",
        ["organisation", "sandbox", "audience_id", "sequence"],
        unique=False,
    )
    op.create_index("ix_membership_change_at", "membership_change", ["organisation", "sandbox", "at"], unique=False)
    _take_over()


def _take_over() -> None:
    """What is there already: one patch of each bucket counts, and each audience begins with its present members."""
    op.execute(
        "UPDATE membership_patch SET newest = (NOT EXISTS (SELECT 1 FROM membership_patch AS later "
        "WHERE later.organisation = membership_patch.organisation AND later.sandbox = membership_patch.sandbox "
        "AND later.bucket = membership_patch.bucket AND later.turn > membership_patch.turn))"
    )
    op.execute(
        "INSERT INTO streaming_turn (organisation, sandbox, turn, failures) "
        "SELECT DISTINCT organisation, sandbox, 0, 0 FROM audience WHERE NOT EXISTS (SELECT 1 FROM streaming_turn AS t "
        "WHERE t.organisation = audience.organisation AND t.sandbox = audience.sandbox)"
    )
    op.execute("UPDATE streaming_turn SET published = turn")
    op.execute(
        "INSERT INTO membership_change (organisation, sandbox, sequence, audience_id, at, job_id, version, run_id, "
        "turn, graph, total_profiles, entered, exited, baseline) "
        "SELECT a.organisation, a.sandbox, row_number() OVER (PARTITION BY a.organisation, a.sandbox ORDER BY a.id), "
        "a.id, coalesce(a.metrics_updated_at, a.updated_at), a.metrics_job_id, coalesce(d.version, 0), "
        "coalesce(a.membership_run_id, ''), t.published, a.membership_graph, a.total_profiles, 0, 0, true "
        "FROM audience AS a JOIN streaming_turn AS t ON t.organisation = a.organisation AND t.sandbox = a.sandbox "
        "LEFT JOIN definition AS d ON d.organisation = a.organisation AND d.sandbox = a.sandbox AND d.id = a.id "
        "WHERE a.total_profiles IS NOT NULL"
    )
    op.execute(
        "UPDATE streaming_turn SET changes = (SELECT count(*) FROM membership_change AS c WHERE "
        "c.organisation = streaming_turn.organisation AND c.sandbox = streaming_turn.sandbox)"
    )
