"""The one place that keeps tenants apart: every statement on tenant data goes through `within` or `within_any`."""

from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, Row, Select, String, and_, bindparam
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.scope import Tenant
from app.storage.columns import StoredValues, TenantRow, columns

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


_ORGANISATION = bindparam("tenant_organisation", type_=String)
_SANDBOX = bindparam("tenant_sandbox", type_=String)


def within_any(statement: Statement, row: type[TenantRow]) -> Statement:
    """The statement, limited to the rows of the tenant that it is executed for by `parameters`, and not to be executed
    without: for statements that are made once and executed often."""
    of = columns(row)
    return statement.where(of.organisation == _ORGANISATION, of.sandbox == _SANDBOX)


def parameters(tenant: Tenant) -> StoredValues:
    """The tenant, as statements made by `within_any` are told it."""
    return {_ORGANISATION.key: tenant.organisation, _SANDBOX.key: tenant.sandbox}


def same_tenant(left: Keyed, right: Keyed) -> ColumnElement[bool]:
    """Joins rows of one tenant: of two tables, aliases or subqueries, each given by its columns."""
    return and_(left.organisation == right.organisation, left.sandbox == right.sandbox)
