"""What all kinds of jobs have in common: state, queue columns, update log and finished buckets."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, enum_column, json_column, time_column


class JobKind(StrEnum):
    """The kind of work. Previews are queued and logged like jobs, but users do not see them as jobs."""

    SEGMENT = "SEGMENT"
    EXPORT = "EXPORT"
    ERASURE = "ERASURE"
    PREVIEW = "PREVIEW"


class JobStatus(StrEnum):
    """NEW → QUEUED → PROCESSING → SUCCEEDED | FAILED; CANCELLING → CANCELLED."""

    NEW = "NEW"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


WAITING = frozenset({JobStatus.NEW, JobStatus.QUEUED})
RUNNING = frozenset({JobStatus.PROCESSING, JobStatus.CANCELLING})
FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class JobSource(StrEnum):
    """What started a job."""

    API = "API"
    SCHEDULER = "SCHEDULER"


class JobPhase(StrEnum):
    """The current phase of a job."""

    WAITING = "WAITING"
    READING = "READING"
    EVALUATING = "EVALUATING"
    WRITING = "WRITING"
    DONE = "DONE"


def live_jobs(table: str) -> Index:
    """An index of the unfinished jobs of a table; most jobs of a sandbox are finished."""
    live = text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")
    names = ("organisation", "sandbox", "status", "created_at", "id")
    return Index(f"ix_{table}_live", *names, sqlite_where=live, postgresql_where=live)


class JobColumns(TenantRow):
    """The columns of a job's table, which is also the queue.

    `attempts` counts claims; it is the fencing token of the current holder, who holds the job until `lease_until`. A
    running job without a lease was released by its worker. `lost_leases` counts attempts that died since the last
    finished bucket. `sequence` is that of the newest row in the update log. `errors` are {code, message,
    definition_id?}. `snapshot` records which data the job reads, so that a later attempt reads the same. `trace` is the
    span that created the job (`app.traces`).
    """

    id: str = Field(primary_key=True)
    status: JobStatus = enum_column(JobStatus, default=JobStatus.QUEUED)
    source: JobSource = enum_column(JobSource, default=JobSource.API)
    schedule_id: str | None = None
    run_id: str | None = None
    idempotency_key: str | None = None
    attempts: int = 0
    lost_leases: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = time_column(default=None)
    sequence: int = 0
    phase: JobPhase = enum_column(JobPhase, default=JobPhase.WAITING)
    fraction: float = 0.0
    profiles_read: int = Field(default=0, sa_type=BigInteger)
    total_profiles: int = Field(default=0, sa_type=BigInteger)
    seconds_left: float | None = None
    errors: list[StoredValues] = json_column(default_factory=list)
    metrics: StoredValues | None = json_column(default=None)
    snapshot: StoredValues | None = json_column(default=None)
    trace: str | None = None
    created_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()
    started_at: datetime | None = time_column(default=None)
    finished_at: datetime | None = time_column(default=None)


class JobUpdateRow(TenantRow, table=True):
    """One visible change of a job of any kind; `state` is the job after the change. A job's sequences have no gaps."""

    __tablename__ = "job_update"
    __table_args__: ClassVar[TableArguments] = (Index(None, "organisation", "sandbox", "at"),)

    job_id: str = Field(primary_key=True)
    sequence: int = Field(primary_key=True)
    kind: str
    state: StoredValues = json_column()
    at: datetime = time_column()


class JobBucketRow(TenantRow, table=True):
    """A finished bucket of a run, with its result file; written once, by one attempt."""

    __tablename__ = "job_bucket"

    job_id: str = Field(primary_key=True)
    bucket: int = Field(primary_key=True)
    attempt: int
    file: str
    profiles: int = Field(sa_type=BigInteger)
    counts: StoredValues = json_column(default_factory=dict)
    at: datetime = time_column()


class JobShareRow(TenantRow, table=True):
    """A bucket of a job that any worker may evaluate during the pass `work` of the job's attempt.

    `attempt` is the job's fencing token. `claims` counts claims of the bucket; it is the fencing token of the last
    claim, which lasts until `lease_until`. `result` is null until the bucket is finished. The job's holder deletes the
    rows.
    """

    __tablename__ = "job_share"

    job_id: str = Field(primary_key=True)
    bucket: int = Field(primary_key=True)
    work: str
    part: int
    attempt: int
    claims: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = time_column(default=None)
    result: StoredValues | None = json_column(default=None)
