"""Erasure jobs: that somebody was erased, where something was found, and no word of who it was."""

from typing import Any, ClassVar

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field

from app.storage.columns import TableArguments, json_column
from app.storage.tables.jobs import JobColumns

_LIVE = text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


class ErasureJobRow(JobColumns, table=True):
    """Erases a person. `digest` is the salted hash of the identity that was given; who that is lies in the lake while
    the job lasts.

    `places` are [place, rows] in the order in which they were looked at. `verified` when a second look found nothing.
    """

    __tablename__ = "erasure_job"
    __table_args__: ClassVar[TableArguments] = (
        UniqueConstraint("organisation", "sandbox", "idempotency_key"),
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        Index(None, "organisation", "sandbox", "schedule_id", "created_at"),
        Index(
            "ix_erasure_job_live",
            "organisation",
            "sandbox",
            "status",
            "created_at",
            "id",
            sqlite_where=_LIVE,
            postgresql_where=_LIVE,
        ),
    )

    digest: str
    reason: str | None = None
    places: list[Any] = json_column(default_factory=list)
    verified: bool = Field(default=False)
