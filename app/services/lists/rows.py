"""How services read: plain rows, never ORM entities, since a loader's rows are only looked at."""

from collections.abc import Iterable
from functools import cache
from typing import TypeVar, cast

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Scope
from app.storage.columns import TenantRow, columns
from app.storage.tenancy import AnySelect, parameters, within, within_any

Row = TypeVar("Row", bound=TenantRow)


def select_rows(table: type[Row], scope: Scope) -> AnySelect:
    """All columns of the tenant's rows."""
    return within(select(*columns(table)), table, scope.tenant)


@cache
def rows_of_any(table: type[TenantRow], without: frozenset[str] = frozenset()) -> AnySelect:
    """All columns, or all but those named, of the rows of the tenant that the statement is executed for: see
    `within_any`."""
    return within_any(select(*(column for column in columns(table) if column.name not in without)), table)


def as_row(table: type[Row], row: object) -> Row:
    """A plain row under the type of its table: it has the same attributes, and can only be read."""
    return cast(Row, row)


async def get_rows(session: AsyncSession, table: type[Row], scope: Scope, ids: Iterable[str]) -> dict[str, Row]:
    """The tenant's rows with these ids, by id; unknown ids are absent."""
    rows = await session.execute(_by_ids(table), {**parameters(scope.tenant), "ids": list(ids)})
    return {row.id: as_row(table, row) for row in rows}


@cache
def _by_ids(table: type[TenantRow]) -> AnySelect:
    return rows_of_any(table).where(columns(table).id.in_(bindparam("ids", expanding=True)))
