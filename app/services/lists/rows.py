"""How services read: plain rows, never ORM entities, since a loader's rows are only looked at."""

from collections.abc import Iterable
from typing import TypeVar, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Scope
from app.storage.columns import TenantRow, columns
from app.storage.tenancy import AnySelect, within

Row = TypeVar("Row", bound=TenantRow)


def select_rows(table: type[Row], scope: Scope) -> AnySelect:
    """All columns of the tenant's rows."""
    return within(select(*columns(table)), table, scope.tenant)


def as_row(table: type[Row], row: object) -> Row:
    """A plain row under the type of its table: it has the same attributes, and can only be read."""
    return cast(Row, row)


async def get_rows(session: AsyncSession, table: type[Row], scope: Scope, ids: Iterable[str]) -> dict[str, Row]:
    """The tenant's rows with these ids, by id; unknown ids are absent."""
    statement = select_rows(table, scope).where(columns(table).id.in_(list(ids)))
    return {row.id: as_row(table, row) for row in await session.execute(statement)}
