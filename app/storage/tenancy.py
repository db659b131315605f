"""Tenant isolation: every statement on tenant data goes through `within` or `within_any`."""

from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, Row, Select, String, and_, bindparam
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.scope import Tenant
from app.storage.columns import StoredValues, TenantRow, columns

AnySelect = Select[*tuple[Any, ...]]
AnyRow = Row[*tuple[Any, ...]]
"""A row returned by a statement, with its columns as attributes."""


class Filterable(Protocol):
    """A statement that accepts WHERE conditions: SELECT, UPDATE or DELETE."""

    def where(self, *conditions: ColumnElement[bool]) -> Self: ...


Statement = TypeVar("Statement", bound=Filterable)
Keyed = ReadOnlyColumnCollection[str, Any]


def within(statement: Statement, row: type[TenantRow], tenant: Tenant) -> Statement:
    """Restricts the statement to the tenant's rows of this table."""
    of = columns(row)
    return statement.where(of.organisation == tenant.organisation, of.sandbox == tenant.sandbox)


_ORGANISATION = bindparam("tenant_organisation", type_=String)
_SANDBOX = bindparam("tenant_sandbox", type_=String)


def within_any(statement: Statement, row: type[TenantRow]) -> Statement:
    """Restricts the statement to one tenant's rows, given by `parameters` at execution; executing it without them is an
    error. For statements that are built once and executed often."""
    of = columns(row)
    return statement.where(of.organisation == _ORGANISATION, of.sandbox == _SANDBOX)


def parameters(tenant: Tenant) -> StoredValues:
    """The tenant, as execution parameters of statements built with `within_any`."""
    return {_ORGANISATION.key: tenant.organisation, _SANDBOX.key: tenant.sandbox}


def same_tenant(left: Keyed, right: Keyed) -> ColumnElement[bool]:
    """Join condition for rows of the same tenant. Each side is the columns of a table, alias or subquery."""
    return and_(left.organisation == right.organisation, left.sandbox == right.sandbox)
