"""Segment jobs, and the definitions as each job evaluated them."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, json_column, time_column
from app.storage.tables.jobs import JobColumns, live_jobs


class SegmentJobRow(JobColumns, table=True):
    """Evaluates definitions over all profiles. `evaluated_at` is the value of `now` throughout the job."""

    __tablename__ = "segment_job"
    __table_args__: ClassVar[TableArguments] = (
        UniqueConstraint("organisation", "sandbox", "idempotency_key"),
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        Index(None, "organisation", "sandbox", "schedule_id", "created_at"),
        live_jobs("segment_job"),
    )

    all_definitions: bool = False
    evaluated_at: datetime | None = time_column(default=None)


class SegmentJobDefinitionRow(TenantRow, table=True):
    """A definition as its job evaluated it. The row outlives the definition; `created_at` is the job's.

    `by_namespace` and `by_status` are {name: count}. `error` is {code, message} if this definition failed. `seconds` is
    wall-clock time, summed over all buckets.
    """

    __tablename__ = "segment_job_definition"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "job_id"],
            ["segment_job.organisation", "segment_job.sandbox", "segment_job.id"],
            ondelete="CASCADE",
        ),
        # A backward scan of this index yields "the last jobs of a definition" (design.md, "GraphQL").
        Index("ix_segment_job_definition_last", "organisation", "sandbox", "definition_id", "created_at", "job_id"),
    )

    job_id: str = Field(primary_key=True)
    definition_id: str = Field(primary_key=True)
    version: int
    expression: str
    kept: StoredValues | None = json_column(default=None)
    merge_policy_id: str
    created_at: datetime = time_column()
    profile_count: int | None = Field(default=None, sa_type=BigInteger)
    by_namespace: dict[str, int] = json_column(default_factory=dict)
    by_status: dict[str, int] = json_column(default_factory=dict)
    error: StoredValues | None = json_column(default=None)
    seconds: float | None = None
