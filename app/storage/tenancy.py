"""The one place that keeps tenants apart: every statement on tenant data goes through `within`."""

from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, Row, Select, and_
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.scope import Tenant
from app.storage.columns import TenantRow, columns

AnySelect = Select[*tuple[Any, ...]]
AnyRow = Row[*tuple[Any, ...]]
"""A row that a statement gives: its columns are attributes."""


class Filterable(Protocol):
    """A statement that can be limited: SELECT, UPDATE or DELETE."""

    def where(self, *conditions: ColumnElement[bool]) -> Self: ...


Statement = TypeVar("Statement", bound=Filterable)
Keyed = ReadOnlyColumnCollection[str, Any]


def within(statement: Statement, row: type[TenantRow], tenant: Tenant) -> Statement:
    """The statement, limited to the tenant's rows of this table."""
    of = columns(row)
    return statement.where(of.organisation == tenant.organisation, of.sandbox == tenant.sandbox)


def same_tenant(left: Keyed, right: Keyed) -> ColumnElement[bool]:
    """Joins rows of one tenant: of two tables, aliases or subqueries, each given by its columns."""
    return and_(left.organisation == right.organisation, left.sandbox == right.sandbox)
