"""Streaming evaluation: what is still to do in a sandbox, whose turn it is, and the memberships that it changed."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, text, true
from sqlmodel import Field

from app.storage.columns import StoredValues, TenantRow, json_column, time_column


class StreamingTurnRow(TenantRow, table=True):
    """A sandbox's place in the queue. `turn` is the number of its newest turn and the fencing token of whoever has it,
    until `lease_until`; nobody has it when that is null. After `failures` in a row it rests until `not_before`.

    Streamed definitions that depend on the clock were last evaluated for everybody at `swept_at` (null: there are
    none), and are again for the buckets up to `swept_to` when that is under way.

    `published` is the newest turn that changed memberships, `changes` the newest `MembershipChangeRow.sequence`: who
    holds the row's lock orders the sandbox's changes.
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
    """A landed batch: `waiting` for its people to be evaluated, or kept because a job that runs may not have seen it.

    `version` is that of the dataset with the batch in it, or without it: one that was deleted waits here as well.
    """

    __tablename__ = "streaming_batch"

    batch_id: str = Field(primary_key=True)
    dataset_id: str
    version: int = Field(sa_type=BigInteger)
    waiting: bool = True
    created_at: datetime = time_column()


class MembershipPatchRow(TenantRow, table=True):
    """Memberships of one bucket as a streaming turn left them; the `newest` turn of a bucket counts, older ones are
    kept for history.

    `bases` are the audiences in the file, each with the head run that the change was made on, "" for none: a newer head
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
