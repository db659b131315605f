"""How long each definition of a segment job took."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segment_job_definition", sa.Column("seconds", sa.Float(), nullable=True))
