"""Schedules, the audiences they name, and their runs."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from app.storage.columns import (
    StoredValues,
    TableArguments,
    TenantRow,
    enum_column,
    json_column,
    sortable_text,
    time_column,
)

_DUE = text("next_due_at IS NOT NULL")


class ScheduleType(StrEnum):
    """The kind of job that a schedule starts."""

    BATCH_SEGMENTATION = "BATCH_SEGMENTATION"
    EXPORT = "EXPORT"


class ScheduleState(StrEnum):
    """Whether a schedule starts jobs at its times."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class RunOutcome(StrEnum):
    """The outcome of a scheduled run."""

    STARTED = "STARTED"
    SKIPPED = "SKIPPED"
    REFUSED = "REFUSED"


class ScheduleRow(TenantRow, table=True):
    """Starts jobs at the times of `cron_expression`. Every write increments `revision`, the etag.

    `next_due_at` is the first due time that has no run yet; None while the schedule is INACTIVE, and after the last
    one. `export` is the input of an EXPORT schedule's jobs, as the caller gave it, with raw ids.
    """

    __tablename__ = "schedule"
    __table_args__: ClassVar[TableArguments] = (
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "name", "id"),
        # A scheduler looks for due schedules of all tenants with one scan of this index, which is small.
        Index("ix_schedule_due", "organisation", "sandbox", "next_due_at", sqlite_where=_DUE, postgresql_where=_DUE),
    )

    id: str = Field(primary_key=True)
    name: str = sortable_text()
    description: str | None = None
    type: ScheduleType = enum_column(ScheduleType, default=ScheduleType.BATCH_SEGMENTATION)
    state: ScheduleState = enum_column(ScheduleState, default=ScheduleState.INACTIVE)
    cron_expression: str
    all_audiences: bool = False
    export: StoredValues | None = json_column(default=None)
    next_due_at: datetime | None = time_column(default=None)
    revision: int = 1
    created_by: str
    last_modified_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()


class ScheduleAudienceRow(TenantRow, table=True):
    """An audience of a schedule: evaluated by its segment jobs, or written by its export."""

    __tablename__ = "schedule_audience"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "schedule_id"],
            ["schedule.organisation", "schedule.sandbox", "schedule.id"],
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["organisation", "sandbox", "audience_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            ondelete="CASCADE",
        ),
        Index("ix_schedule_audience_schedules", "organisation", "sandbox", "audience_id", "schedule_id"),
    )

    schedule_id: str = Field(primary_key=True)
    audience_id: str = Field(primary_key=True)


class ScheduleRunRow(TenantRow, table=True):
    """The outcome of one due time, or of one manual run, which has no `due_at`.

    At most one run exists for a due time, whichever process creates it, so each due time starts at most one job.
    `outcome` is STARTED, with the job; SKIPPED, for a missed time; or REFUSED, with the reason in `message`.
    """

    __tablename__ = "schedule_run"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "schedule_id"],
            ["schedule.organisation", "schedule.sandbox", "schedule.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("organisation", "sandbox", "schedule_id", "due_at"),
        Index("ix_schedule_run_last", "organisation", "sandbox", "schedule_id", "at"),
    )

    id: str = Field(primary_key=True)
    schedule_id: str
    due_at: datetime | None = time_column(default=None)
    outcome: RunOutcome = enum_column(RunOutcome)
    job_id: str | None = None
    message: str | None = None
    at: datetime = time_column()
