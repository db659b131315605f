"""Previews and their estimates, and the bucket order of each sandbox's samples."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, enum_column, json_column, time_column
from app.storage.tables.jobs import JobColumns, live_jobs
from app.storage.tables.merge_policies import IdentityGraph


class PreviewRow(JobColumns, table=True):
    """An expression evaluated on a sample; queued, claimed and logged like a job. `fraction` is the share of the sample
    read.

    `merge_policy` is a snapshot of the policy at creation: {id, name, method, identity_graph, datasets, …}.
    `rows_to_read` is the sample size. Of the `profiles_read` so far, `profiles_matched` qualify; `by_namespace` {name:
    count} counts how many of them have an identity in each namespace. `snapshot` has the order of its buckets. `kept`
    is {first, by, descending} if only the first profiles by the value of an expression are kept.
    """

    __tablename__ = "preview"
    __table_args__: ClassVar[TableArguments] = (
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        live_jobs("preview"),
    )

    expression: str
    merge_policy: StoredValues = json_column()
    graph_type: IdentityGraph = enum_column(IdentityGraph)
    exclude_opt_out: bool = True
    kept: StoredValues | None = json_column(default=None)
    evaluated_at: datetime | None = time_column(default=None)
    rows_to_read: int = Field(default=0, sa_type=BigInteger)
    profiles_matched: int = Field(default=0, sa_type=BigInteger)
    by_namespace: dict[str, int] = json_column(default_factory=dict)


class PreviewSampleRow(TenantRow, table=True):
    """The sample shared by the previews of a merge policy. `seed` orders the buckets; it is replaced when the number of
    profiles differs too much from `total_profiles`."""

    __tablename__ = "preview_sample"

    merge_policy_id: str = Field(primary_key=True)
    graph_type: IdentityGraph = enum_column(IdentityGraph, primary_key=True)
    seed: str
    total_profiles: int = Field(sa_type=BigInteger)
    drawn_at: datetime = time_column()
