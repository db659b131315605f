"""What changed that can be searched for: written by triggers of the database, so by every writer there is."""

from typing import ClassVar

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow

CHANGES_KEPT = 10_000
"""How many changes the log of a tenant goes back; an index that is further behind is made anew."""


class SearchVersionRow(TenantRow, table=True):
    """Rises by one with each change. Its row is locked until the change is committed, so that versions become visible
    in their order."""

    __tablename__ = "search_version"

    version: int = Field(sa_type=BigInteger)


class SearchChangeRow(TenantRow, table=True):
    """The version of an object's last change, be it its making or its deletion. `kind` is its type in the API."""

    __tablename__ = "search_change"
    __table_args__: ClassVar[TableArguments] = (Index(None, "organisation", "sandbox", "version"),)

    kind: str = Field(primary_key=True)
    object_id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
