"""Live workers. They serve all tenants, so their rows belong to none."""

from datetime import datetime

from sqlmodel import Field

from app.storage.columns import Row, time_column


class WorkerRow(Row, table=True):
    """A worker, under the name in its leases. It is dead or frozen once `alive_until` has passed."""

    __tablename__ = "worker"

    name: str = Field(primary_key=True)
    started_at: datetime = time_column()
    alive_until: datetime = time_column()
