"""Writes without the ORM: a transaction whose frequent statements go directly to the driver.

Like a `ReadSession`, a `WriteSession` creates a SQLAlchemy session only when it is used as one; both share one
transaction.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Self

from sqlalchemy import Dialect, String, Table, bindparam, update
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session

from app.scope import Tenant
from app.storage.columns import Row, StoredValues, TenantRow, columns, table
from app.storage.sessions.reading import Prepared, ReadSession, read
from app.storage.tenancy import AnyRow, parameters, within_any

_UPDATED, _NEW = "updated_id", "new_"
"""Parameters of updates; those named as columns belong to SQLAlchemy."""
CHANNEL: Final = "segmentation"
"""PostgreSQL's notification channel."""
ABANDONED_SECONDS = 15.0
"""How long PostgreSQL waits for the next statement of a transaction before it rolls it back and ends its connection.

A process that is frozen in a transaction (sleep, a paused container, a lost host) would otherwise keep its locks, and
others would wait for it: rows under a lock are skipped by claims, however long ago their lease has expired.
"""


class _Begun:
    """A transaction that a statement has begun, as SQLAlchemy's adapter for asyncpg ends it."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def commit(self) -> None:
        await self._driver.execute("COMMIT")

    async def rollback(self) -> None:
        await self._driver.execute("ROLLBACK")


class _Savepoint(AsyncSessionTransaction):
    """Part of a transaction that can be undone by itself, including what goes directly to the driver."""

    async def start(self, is_ctxmanager: bool = False) -> Self:
        await super().start(is_ctxmanager)
        # SQLAlchemy sets a savepoint only before its own next statement.
        await self.session.connection()
        return self


class WriteSession(ReadSession):
    """One transaction on one pooled connection. `Database.write` creates, begins and commits it.

    After the commit, `topics` are announced in this process, and `notifications` (digests in hexadecimal, which need no
    quotes in SQL) are sent to PostgreSQL's listeners.
    `added_ids` are those of the rows that `insert` has added.
    """

    def __init__(self, engine: AsyncEngine, pooled: Any) -> None:
        super().__init__(engine, pooled)
        self.topics: set[object] = set()
        self.notifications: dict[str, None] = {}
        self.added_ids: list[str] = []

    def _prepare_connection(self) -> None:
        """Its connection may write, and has the default isolation level."""

    def _new_session(self) -> Session:
        return Session(bind=self._connection, expire_on_commit=False)

    async def start(self, lock: int | None = None) -> None:
        """Begins the transaction. On PostgreSQL it waits for the advisory lock of this number, and holds it until its
        end."""
        if not self._postgresql:
            await self._run("BEGIN IMMEDIATE")
            return
        # SQLAlchemy's session joins this transaction when it is used, and its adapter ends it.
        self._adapter._transaction = _Begun(self._driver)
        limit = f"SET LOCAL idle_in_transaction_session_timeout = {ABANDONED_SECONDS * 1000:.0f}"
        await self._run(
            "; ".join(["BEGIN", limit, *([] if lock is None else [f"SELECT pg_advisory_xact_lock({lock:d})"])])
        )

    async def commit(self) -> None:
        """Commits, and sends the notifications in the same round trip."""
        await self._flush_pending()
        text = "COMMIT"
        if self.notifications:
            payloads = ",".join(self.notifications)
            text = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest('{{{payloads}}}'::text[]) payload; COMMIT"
        try:
            status = await self._run(text)
        finally:
            if self._postgresql:
                self._adapter._transaction = None
        if status == "ROLLBACK":
            raise RuntimeError("nothing was committed: an earlier statement of the transaction had failed")

    def begin_nested(self) -> AsyncSessionTransaction:
        return _Savepoint(self, nested=True)

    async def rollback(self) -> None:
        """Undoes everything so far, and begins anew."""
        await super().rollback()
        if self._in_transaction:
            await self._run("ROLLBACK")
        await self.start()

    async def rows(self, prepared: Prepared, values: StoredValues, *, alone: bool = False) -> Sequence[AnyRow]:
        await self._flush_pending()
        return await super().rows(prepared, values)

    async def insert(self, *rows: Row) -> None:
        """Inserts rows of one table, with all their columns. Raises SQLAlchemy's exceptions."""
        await self._flush_pending()
        statement = _insert(table(type(rows[0])), self.dialect)
        arguments = [statement.arguments(row) for row in rows]
        with self._driving(statement.text, arguments):
            if len(rows) > 1:
                await self._driver.executemany(statement.text, arguments)
            elif self._postgresql:
                await self._driver.execute(statement.text, *arguments[0])
            else:
                await self._driver.execute_fetchall(statement.text, arguments[0])
        self.added_ids += [row.id for row in rows if hasattr(row, "id")]

    async def _flush_pending(self) -> None:
        """Executes what SQLAlchemy's session, if there is one, has not yet executed."""
        if self._connection is not None and not self.sync_session._is_clean():
            await self.flush()

    async def _run(self, text: str) -> str | None:
        """Executes statements without parameters; the status of the last one on PostgreSQL."""
        with self._driving(text, ()):
            if self._postgresql:
                return str(await self._driver.execute(text))
            await self._driver.execute_fetchall(text)
            return None


class _Insert:
    """The INSERT statement of all columns of a table, compiled for one driver."""

    def __init__(self, into: Table, dialect: Dialect) -> None:
        compiled = insert_into(into).compile(dialect=dialect, column_keys=[column.key for column in into.columns])
        self.text: Final = str(compiled)
        self._columns: Final = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]

    def arguments(self, row: Row) -> list[object]:
        values = [(getattr(row, name), process) for name, process in self._columns]
        return [value if process is None else process(value) for value, process in values]


_INSERTS: Final[dict[tuple[Table, str], _Insert]] = {}


def _insert(into: Table, dialect: Dialect) -> _Insert:
    key = into, dialect.name
    if key not in _INSERTS:
        _INSERTS[key] = _Insert(into, dialect)
    return _INSERTS[key]


async def insert_rows(session: AsyncSession, *rows: Row) -> None:
    """Inserts any number of rows of one table, with all their columns, into a session of `Database.write`."""
    if not isinstance(session, WriteSession):
        raise TypeError(f"{type(session).__name__} cannot insert: use a session of Database.write")
    if rows:
        await session.insert(*rows)


async def update_row(
    session: AsyncSession, row: type[TenantRow], tenant: Tenant, id: str, values: Mapping[str, object]
) -> None:
    """Sets columns of the tenant's row with this id."""
    updated = {**parameters(tenant), _UPDATED: id, **{f"{_NEW}{name}": value for name, value in values.items()}}
    await read(session, _update(row, frozenset(values)), updated)


@cache
def _update(row: type[TenantRow], names: frozenset[str]) -> Prepared:
    of = columns(row)
    mine = within_any(update(table(row)), row).where(of["id"] == bindparam(_UPDATED, type_=String))
    return Prepared(mine.values({name: bindparam(f"{_NEW}{name}", type_=of[name].type) for name in sorted(names)}))
