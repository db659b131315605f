"""Erasure jobs: record that a person was erased and where data was found, without identifying the person."""

from typing import Any, ClassVar

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from app.storage.columns import TableArguments, json_column
from app.storage.tables.jobs import JobColumns, live_jobs


class ErasureJobRow(JobColumns, table=True):
    """Erases a person. `digest` is the salted hash of the requested identity; the identity itself is in the lake while
    the job runs.

    `places` is a list of [place, rows] in search order. `verified` is true if a second search found nothing.
    """

    __tablename__ = "erasure_job"
    __table_args__: ClassVar[TableArguments] = (
        UniqueConstraint("organisation", "sandbox", "idempotency_key"),
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        Index(None, "organisation", "sandbox", "schedule_id", "created_at"),
        live_jobs("erasure_job"),
    )

    digest: str
    reason: str | None = None
    places: list[Any] = json_column(default_factory=list)
    verified: bool = Field(default=False)
