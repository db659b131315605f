"""Export jobs and the audiences that each one exports."""

from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, json_column
from app.storage.tables.jobs import JobColumns, live_jobs


class ExportJobRow(JobColumns, table=True):
    """Writes profiles to a dataset of kind EXPORT, and is deleted with it.

    `fields` is a list of paths; empty means all. `filter` and `additional_fields` are the caller's input with raw ids.
    `merge_policy` is a snapshot of the policy at creation, replaced at the start of the first attempt: {id, name,
    method, identity_graph, datasets, …}. `waits_for` is the segment job that must end first. Once `committing` is true
    its batches become visible one by one, so it can no longer be cancelled.
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
        live_jobs("export_job"),
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
    """An audience of an export: its name, for display, and the statuses to export.

    The row outlives the audience. `place` is the audience's index in the caller's list.
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
