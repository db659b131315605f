"""Datasets and their batches. The rows themselves are stored in the lake."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow, enum_column, json_column, sortable_text, time_column


class DatasetKind(StrEnum):
    """The kind of row that a dataset contains."""

    PROFILE = "PROFILE"
    EVENT = "EVENT"
    AUDIENCE = "AUDIENCE"
    EXPORT = "EXPORT"


class BatchStatus(StrEnum):
    """LOADING → ACTIVE | FAILED; ACTIVE → DELETING, then the row is deleted."""

    LOADING = "LOADING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"
    DELETING = "DELETING"


UNSETTLED = (BatchStatus.LOADING, BatchStatus.DELETING)
"""The states in which a process is working on the batch."""


class DatasetRow(TenantRow, table=True):
    """`kind` is PROFILE, EVENT, AUDIENCE or EXPORT. `identity_column` with `namespace` is the primary identity."""

    __tablename__ = "dataset"
    __table_args__: ClassVar[TableArguments] = (
        UniqueConstraint("organisation", "sandbox", "name"),
        Index(None, "organisation", "sandbox", "created_at", "id"),
    )

    id: str = Field(primary_key=True)
    name: str = sortable_text()
    kind: DatasetKind = enum_column(DatasetKind)
    identity_column: str | None = None
    namespace: str | None = None
    timestamp_column: str | None = None
    row_count: int = Field(default=0, sa_type=BigInteger)
    revision: int = 1
    created_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()


class BatchRow(TenantRow, table=True):
    """One file of a dataset: LOADING while its loader renews `lease_until`, then ACTIVE, or FAILED with `error`.

    It is DELETING until its rows are removed from the lake. A batch written by an export job refers to the job and is
    visible only when ACTIVE. A FAILED batch has no `idempotency_key`, so that the file can be sent again. `content` is
    the digest of the request that used the key.
    """

    __tablename__ = "batch"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "dataset_id"],
            ["dataset.organisation", "dataset.sandbox", "dataset.id"],
            ondelete="CASCADE",
        ),
        Index(None, "organisation", "sandbox", "dataset_id", "created_at", "id"),
        Index(
            "ix_batch_loading",
            "organisation",
            "sandbox",
            "lease_until",
            sqlite_where=text("status = 'LOADING'"),
            postgresql_where=text("status = 'LOADING'"),
        ),
        Index(
            "ix_batch_idempotency",
            "organisation",
            "sandbox",
            "dataset_id",
            "idempotency_key",
            unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"),
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "ix_batch_of_job",
            "organisation",
            "sandbox",
            "job_id",
            "id",
            sqlite_where=text("job_id IS NOT NULL"),
            postgresql_where=text("job_id IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    dataset_id: str
    status: BatchStatus = enum_column(BatchStatus)
    row_count: int = Field(default=0, sa_type=BigInteger)
    rejected_rows: int = Field(default=0, sa_type=BigInteger)
    duplicate_rows: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    bytes: int = Field(default=0, sa_type=BigInteger)
    error: str | None = None
    segment_ids: list[str] = json_column(default_factory=list)
    job_id: str | None = None
    idempotency_key: str | None = None
    content: str | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = time_column(default=None)
    created_by: str
    created_at: datetime = time_column()
