"""Changes to searchable objects, recorded by database triggers and therefore for every writer."""

from typing import ClassVar

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow

CHANGES_KEPT = 10_000
"""Number of changes kept per tenant. A search index further behind than this is rebuilt."""


class SearchVersionRow(TenantRow, table=True):
    """A counter that each change increments. Its row is locked until the change commits, so versions become visible in
    order."""

    __tablename__ = "search_version"

    version: int = Field(sa_type=BigInteger)


class SearchChangeRow(TenantRow, table=True):
    """The version of an object's last change, including its creation or deletion. `kind` is its type in the API."""

    __tablename__ = "search_change"
    __table_args__: ClassVar[TableArguments] = (Index(None, "organisation", "sandbox", "version"),)

    kind: str = Field(primary_key=True)
    object_id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
