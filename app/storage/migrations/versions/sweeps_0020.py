"""When streamed definitions that depend on the clock were last evaluated for everybody."""

import sqlalchemy as sa
from alembic import op

from app.storage.columns import UtcDateTime

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("streaming_turn", sa.Column("swept_at", UtcDateTime(), nullable=True))
    op.add_column("streaming_turn", sa.Column("swept_to", sa.Integer(), nullable=True))
