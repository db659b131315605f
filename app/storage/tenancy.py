"""The one place that keeps tenants apart: every statement on tenant data goes through `within`."""

from typing import Any, TypeVar

from sqlalchemy import Delete, Select, Update

from app.scope import Tenant
from app.storage.columns import TenantRow

Statement = TypeVar("Statement", Select[Any], Update, Delete)


def within(statement: Statement, row: type[TenantRow], tenant: Tenant) -> Statement:
    """The statement, limited to the tenant's rows of this table."""
    columns = row.__table__.c  # type: ignore[attr-defined]
    return statement.where(columns.organisation == tenant.organisation, columns.sandbox == tenant.sandbox)
