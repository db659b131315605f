"""Previews with their estimates, and which buckets the samples of a sandbox begin with."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, enum_column, json_column, time_column
from app.storage.tables.jobs import JobColumns
from app.storage.tables.merge_policies import IdentityGraph

_LIVE = text("status IN ('NEW', 'QUEUED', 'PROCESSING', 'CANCELLING')")


class PreviewRow(JobColumns, table=True):
    """An expression tried on a sample; queued, claimed and logged as jobs are. `fraction` is that of the sample.

    `merge_policy` is the policy as it was when the preview was made, {id, name, method, identity_graph, datasets, …}.
    `rows_to_read` is the size of the sample; of the `profiles_read` so far, `profiles_matched` qualify, and
    `by_namespace` {name: count} of these have an identity there. `snapshot` has the order of its buckets. `kept` is
    {first, by, descending} where only the first profiles by the value of an expression are kept.
    """

    __tablename__ = "preview"
    __table_args__: ClassVar[TableArguments] = (
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "started_at"),
        Index(
            "ix_preview_live",
            "organisation",
            "sandbox",
            "status",
            "created_at",
            "id",
            sqlite_where=_LIVE,
            postgresql_where=_LIVE,
        ),
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
    """The sample that the previews of a merge policy share: `seed` orders the buckets until there are many more people
    (or fewer) than `total_profiles`."""

    __tablename__ = "preview_sample"

    merge_policy_id: str = Field(primary_key=True)
    graph_type: IdentityGraph = enum_column(IdentityGraph, primary_key=True)
    seed: str
    total_profiles: int = Field(sa_type=BigInteger)
    drawn_at: datetime = time_column()
