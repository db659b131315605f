"""Batches that were deleted wait for streaming too: they need no row among the batches."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("streaming_batch") as table:
        table.drop_constraint("fk_streaming_batch_organisation_sandbox_batch_id", type_="foreignkey")
