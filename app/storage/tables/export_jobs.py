"""Export jobs, and the audiences whose members each one writes."""

from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, json_column
from app.storage.tables.jobs import JobColumns

_LIVE = text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


class ExportJobRow(JobColumns, table=True):
    """Writes people to a dataset of kind EXPORT, with which it goes.

    `fields` are paths, none for all. `filter` and `additional_fields` are as the caller gave them, with raw ids.
    `merge_policy` is the policy as it was when the job was made, {id, name, method, identity_graph, datasets, …}.
    `waits_for` is the segment job that is to end before it is this one's turn. Once it is `committing` its batches
    become visible one after another, so it can no longer be cancelled.
    """

    __tablename__ = "export_job"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "destination_id"],
            ["dataset.organisation", "dataset.sandbox", "dataset.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("organisation", "sandbox", "idempotency_key"),
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        Index(None, "organisation", "sandbox", "schedule_id", "created_at"),
        Index(None, "organisation", "sandbox", "destination_id", "created_at"),
        Index(
            "ix_export_job_live",
            "organisation",
            "sandbox",
            "status",
            "created_at",
            "id",
            sqlite_where=_LIVE,
            postgresql_where=_LIVE,
        ),
    )

    fields: list[str] = json_column(default_factory=list)
    merge_policy_id: str
    merge_policy: StoredValues = json_column()
    filter: StoredValues | None = json_column(default=None)
    additional_fields: StoredValues | None = json_column(default=None)
    schema_name: str
    destination_id: str
    segment_per_batch: bool = False
    evaluate_first: bool = False
    waits_for: str | None = None
    committing: bool = False


class ExportJobAudienceRow(TenantRow, table=True):
    """An audience that an export was asked for, with its name for readers, and the statuses that count.

    It outlives the audience. `place` is its place in the caller's list.
    """

    __tablename__ = "export_job_audience"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "job_id"],
            ["export_job.organisation", "export_job.sandbox", "export_job.id"],
            ondelete="CASCADE",
        ),
        Index("ix_export_job_audience_jobs", "organisation", "sandbox", "audience_id", "job_id"),
    )

    job_id: str = Field(primary_key=True)
    audience_id: str = Field(primary_key=True)
    place: int
    namespace: str
    segment_id: str
    status: list[str] = json_column()
