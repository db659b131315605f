"""Streaming evaluation: pending batches of a sandbox, its turn, and the memberships it changed."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, text, true
from sqlmodel import Field

from app.storage.columns import StoredValues, TenantRow, json_column, time_column


class StreamingTurnRow(TenantRow, table=True):
    """A sandbox's place in the queue. `turn` is the number of its newest turn and the holder's fencing token. The
    holder keeps the turn until `lease_until`; null means no holder. After `failures` consecutive failures the sandbox
    pauses until `not_before`.

    `swept_at` is when the streamed definitions that depend on the clock were last evaluated for all profiles (null:
    there are none). While a new sweep is in progress, `swept_to` is its last finished bucket.

    `published` is the newest turn that changed memberships, `changes` the newest `MembershipChangeRow.sequence`: the
    lock on this row orders the sandbox's changes.
    """

    __tablename__ = "streaming_turn"

    turn: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = time_column(default=None)
    failures: int = 0
    not_before: datetime | None = time_column(default=None)
    swept_at: datetime | None = time_column(default=None)
    swept_to: int | None = None
    published: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    changes: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})


class StreamingBatchRow(TenantRow, table=True):
    """A committed batch: `waiting` for evaluation, or kept because a running job may not have read it.

    `version` is the dataset's version with the batch, or without it for a deleted batch, which is queued here as well.
    """

    __tablename__ = "streaming_batch"

    batch_id: str = Field(primary_key=True)
    dataset_id: str
    version: int = Field(sa_type=BigInteger)
    waiting: bool = True
    created_at: datetime = time_column()


class MembershipPatchRow(TenantRow, table=True):
    """Memberships of one bucket after a streaming turn. The `newest` turn of a bucket counts; older ones are kept for
    history.

    `bases` maps each audience in the file to the head run that the change applies to ("" for none): a newer head
    replaces the patch. `counts` are {audience: {members, by_namespace}} of the bucket.
    """

    __tablename__ = "membership_patch"
    __table_args__: ClassVar[Any] = (
        Index(
            "ix_membership_patch_newest",
            "organisation",
            "sandbox",
            "bucket",
            sqlite_where=text("newest"),
            postgresql_where=text("newest"),
        ),
    )

    bucket: int = Field(primary_key=True)
    turn: int = Field(primary_key=True)
    file: str
    bases: dict[str, str] = json_column()
    counts: StoredValues = json_column()
    at: datetime = time_column()
    newest: bool = Field(default=True, sa_column_kwargs={"server_default": true()})
