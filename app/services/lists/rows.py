"""Reads rows for services: plain rows, never ORM entities, because callers only read them."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, Protocol, TypeVar, cast

import orjson
from sqlalchemy import ARRAY, ColumnElement, String, any_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import ErrorCode, Refusal, StaleEtag
from app.scope import Scope
from app.storage.columns import TenantRow, columns
from app.storage.sessions.reading import Prepared, dialect_of, read
from app.storage.tenancy import AnyRow, AnySelect, parameters, within, within_any

Row = TypeVar("Row", bound=TenantRow)


class _Revised(Protocol):
    revision: int


Revised = TypeVar("Revised", bound=_Revised)


def select_rows(table: type[Row], scope: Scope) -> AnySelect:
    """Selects all columns of the tenant's rows."""
    return within(select(*columns(table)), table, scope.tenant)


@cache
def rows_of_any(table: type[TenantRow], without: frozenset[str] = frozenset()) -> AnySelect:
    """Selects all columns, optionally without the named ones, of the tenant given at execution: see `within_any`."""
    return within_any(select(*(column for column in columns(table) if column.name not in without)), table)


def as_row(table: type[Row], row: object) -> Row:
    """A plain row with the static type of its table: it has the same attributes, and is read-only."""
    return cast(Row, row)


async def get_rows(session: AsyncSession, table: type[Row], scope: Scope, ids: Iterable[str]) -> dict[str, Row]:
    """The tenant's rows with these ids, by id; unknown ids are absent."""
    rows = await rows_among(session, _by_ids(table), scope, ids)
    return {row.id: as_row(table, row) for row in rows}


def current_row(row: Revised | None, noun: str, id: str, etag: str | None = None) -> Revised:
    """The row, which was looked up by this id. Raises `Refusal` if there is none, and `StaleEtag` if an etag is given
    that is not the current one."""
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no {noun} {id!r} in this sandbox", ("id",))
    if etag is not None and etag != str(row.revision):
        raise StaleEtag(str(row.revision), ("etag",))
    return row


@cache
def _by_ids(table: type[TenantRow]) -> "Among":
    return Among(rows_of_any(table), columns(table).id)


class Among:
    """Selects the rows of a `within_any` statement whose column has one of many values. All values are one parameter,
    so the statement does not depend on their number."""

    def __init__(self, statement: AnySelect, column: ColumnElement[str]) -> None:
        self.by_dialect: Final = {
            dialect: Prepared(statement.where(among(dialect, column))) for dialect in ("postgresql", "sqlite")
        }


async def rows_among(session: AsyncSession, statement: Among, scope: Scope, values: Iterable[str]) -> Sequence[AnyRow]:
    """The tenant's rows with one of these values. Raises SQLAlchemy's exceptions."""
    prepared = statement.by_dialect[dialect_of(session)]
    return await read(session, prepared, {**parameters(scope.tenant), "among": among_values(session, values)})


def among(dialect: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a column has one of the values that the parameter `among` has: see `among_values`."""
    if dialect == "postgresql":
        return column == any_(bindparam("among", type_=ARRAY(String)))
    as_json = func.json_each(bindparam("among", type_=String)).table_valued("value")
    return column.in_(select(as_json.c.value))


def among_values(session: AsyncSession, values: Iterable[str]) -> object:
    """Values as a parameter of the condition `among`."""
    return list(values) if dialect_of(session) == "postgresql" else orjson.dumps(list(values)).decode()
