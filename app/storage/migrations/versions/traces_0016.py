"""Where the trace of a job begins."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("segment_job", "export_job", "preview"):
        op.add_column(table, sa.Column("trace", sa.String(), nullable=True))
