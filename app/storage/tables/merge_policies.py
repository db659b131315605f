"""Merge policies: how the fragments of a profile are merged."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow, enum_column, json_column, sortable_text, time_column


class MergeMethod(StrEnum):
    """Which value wins when fragments differ."""

    TIMESTAMP_ORDERED = "TIMESTAMP_ORDERED"
    DATA_SET_PRECEDENCE = "DATA_SET_PRECEDENCE"


class IdentityGraph(StrEnum):
    """How fragments are linked to one person."""

    NONE = "NONE"
    PDG = "PDG"


class MergePolicyRow(TenantRow, table=True):
    """`datasets` are ids in order of precedence, for DATA_SET_PRECEDENCE. Every write increments `revision`."""

    __tablename__ = "merge_policy"
    __table_args__: ClassVar[TableArguments] = (
        Index(
            "uq_merge_policy_default",
            "organisation",
            "sandbox",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
        Index(None, "organisation", "sandbox", "created_at", "id"),
    )

    id: str = Field(primary_key=True)
    name: str = sortable_text()
    method: MergeMethod = enum_column(MergeMethod)
    identity_graph: IdentityGraph = enum_column(IdentityGraph)
    datasets: list[str] = json_column(default_factory=list)
    is_default: bool = False
    revision: int = 1
    created_by: str
    last_modified_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()
