"""External audiences and the members that were uploaded for them: every audience has a head, not definitions only."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audience", sa.Column("membership_run_id", sa.String(), nullable=True))
    op.execute(
        "UPDATE audience SET membership_run_id = (SELECT d.membership_run_id FROM definition d"
        " WHERE d.organisation = audience.organisation AND d.sandbox = audience.sandbox AND d.id = audience.id)"
    )
    op.drop_column("definition", "membership_run_id")
