"""Exports the rows of all tables and imports them again, on either kind of database; knows no table."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from asyncpg import LockNotAvailableError
from sqlalchemy import DateTime, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.columns import Row, StoredValues
from app.storage.database import Database

TRANSIENT = frozenset({"worker", "job_share", "search_change", "search_version"})
"""Tables that a dump leaves out: live processes, what they share, and rows that triggers write again during the
import."""
ROWS_AT_ONCE = 500

_LOCK_SECONDS = 0.4
"""Shorter than PostgreSQL's `deadlock_timeout`, after which it looks for deadlocks and aborts a transaction."""
_TRIES = 200


@asynccontextmanager
async def frozen(database: Database) -> AsyncIterator[AsyncSession]:
    """Keeps every process from writing until the block ends. Yields the session that holds the locks.

    Keep the block short, since writers wait. Raises `TimeoutError` if PostgreSQL never grants the locks.
    """
    async with database.write() as writer:
        await _stop_writers(database, writer)
        yield writer


async def _stop_writers(database: Database, writer: AsyncSession) -> None:
    if database.dialect == "sqlite":
        # The transaction began as IMMEDIATE and already holds the write lock.
        await writer.execute(text("SELECT 1"))
        return
    tables = ", ".join(sorted(Row.metadata.tables))
    for _ in range(_TRIES):
        await writer.execute(text(f"SET LOCAL lock_timeout = {int(_LOCK_SECONDS * 1000)}"))
        try:
            await writer.execute(text(f"LOCK TABLE {tables} IN SHARE MODE"))
        except DBAPIError as error:
            await writer.rollback()
            if error.orig is None or not isinstance(error.orig.__cause__, LockNotAvailableError):
                raise
            await asyncio.sleep(_LOCK_SECONDS / 4)
        else:
            return
    raise TimeoutError("the database never had a moment without writers: try again later")


async def pin(session: AsyncSession) -> None:
    """Pins a session's snapshot: all later reads see the database as of now."""
    await session.execute(select(func.count()).select_from(text("alembic_version")))


async def revision(session: AsyncSession) -> str:
    return str((await session.execute(text("SELECT version_num FROM alembic_version"))).scalar_one())


async def rows(session: AsyncSession) -> AsyncIterator[tuple[str, StoredValues]]:
    """All rows with their table names, in an order in which they can be inserted again."""
    for table in Row.metadata.sorted_tables:
        if table.name in TRANSIENT:
            continue
        result = await session.stream(select(table).execution_options(yield_per=ROWS_AT_ONCE))
        if any(key.column.table is table for key in table.foreign_keys):
            for row in _parents_first(table, [dict(each) async for each in result.mappings()]):
                yield table.name, _as_json(row)
        else:
            async for each in result.mappings():
                yield table.name, _as_json(each)


async def is_empty(session: AsyncSession) -> bool:
    """Whether the database has no rows, apart from `TRANSIENT` tables."""
    for table in Row.metadata.sorted_tables:
        if table.name not in TRANSIENT and (await session.execute(select(table).limit(1))).first() is not None:
            return False
    return True


async def tables_of(session: AsyncSession) -> dict[str, Table]:
    """The tables as they exist in the database, possibly with the schema of an earlier version."""
    metadata = MetaData()
    connection = await session.connection()
    await connection.run_sync(lambda sync: metadata.reflect(sync))
    return dict(metadata.tables)


async def read_in(session: AsyncSession, table: Table, batch: Sequence[StoredValues]) -> None:
    """Inserts rows of one table, in the form that `rows` yields."""
    times = {column.name for column in table.columns if isinstance(column.type, DateTime)}
    naive = session.get_bind().dialect.name == "sqlite"
    await session.execute(insert(table), [_from_json(row, times, naive) for row in batch])


def _parents_first(table: Table, rows: list[StoredValues]) -> Iterator[StoredValues]:
    """Orders the rows of a self-referencing table so that parents come before children."""
    (parent,) = {key.parent.name for key in table.foreign_keys if key.column.table is table and key.column.name == "id"}
    tenant = ("organisation", "sandbox")
    by_key = {tuple(row[name] for name in (*tenant, "id")): row for row in rows}
    written: set[tuple[Any, ...]] = set()
    for key in by_key:
        chain = []
        above: tuple[object, ...] | None = key
        while above is not None and above not in written and above in by_key:
            written.add(above)
            chain.append(by_key[above])
            row = by_key[above]
            above = None if row[parent] is None else (*(row[name] for name in tenant), row[parent])
        yield from reversed(chain)


def _as_json(row: Mapping[Any, object]) -> StoredValues:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _from_json(row: StoredValues, times: set[str], naive: bool) -> StoredValues:
    values = dict(row)
    for name in times & values.keys():
        if values[name] is not None:
            instant = datetime.fromisoformat(values[name]).astimezone(UTC)
            values[name] = instant.replace(tzinfo=None) if naive else instant
    return values
