"""Folders: one tree per namespace, which organises audiences."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow, sortable_text, time_column


class FolderRow(TenantRow, table=True):
    """`path` joins the names from the root down, each after a slash: `/Retail/Summer`. It is unique within the
    namespace.

    Audiences refer to a folder without a foreign key: writers of either must hold the tenant's lock (`Database.write`).
    """

    __tablename__ = "folder"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "parent_id"],
            ["folder.organisation", "folder.sandbox", "folder.id"],
        ),
        Index(None, "organisation", "sandbox", "parent_id"),
    )

    id: str = Field(primary_key=True)
    name: str
    namespace: str
    parent_id: str | None = None
    path: str = sortable_text()
    revision: int = 1
    created_by: str
    last_modified_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()
