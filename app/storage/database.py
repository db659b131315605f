"""The database: connections, transactions and what differs between SQLite and PostgreSQL; knows no table."""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import asyncpg
import orjson
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from app import traces
from app.errors import DatabaseAway, InvalidDatabaseUrl
from app.scope import Tenant
from app.storage.columns import StoredValues
from app.storage.migrate import NEWEST, differences, migrate, misfit, use_wal

DatabaseSession = AsyncSession
"""The name of sessions where SQLAlchemy is not imported."""
Topics = frozenset[Any]
BUSY_SECONDS = 30
"""How long a writer on SQLite waits for the writer of another process."""


_FULL_SECONDS = 0.1
"""How often a server that has no place for another connection is asked again."""


class Witness(Protocol):
    """Adds to the transactions of a piece of work what is to be committed with them or not at all."""

    async def before_commit(self, session: AsyncSession) -> None: ...

    def committed(self) -> None: ...


WITNESS: ContextVar[Witness | None] = ContextVar("witness", default=None)
"""The witness of the present task, and of those that it starts."""


@contextmanager
def unwitnessed() -> Iterator[None]:
    """Transactions inside are nobody's work."""
    token = WITNESS.set(None)
    try:
        yield
    finally:
        WITNESS.reset(token)


@dataclass(frozen=True, slots=True)
class PoolState:
    """Connections at most, and those in use."""

    limit: int
    used: int


class Database:
    """One database of either kind, for one event loop. Close it with `dispose`.

    `url` is `sqlite:///path/to/file.db` or a plain `postgresql://user:password@host/name` in libpq's form, also with
    a socket (`?host=/folder`). Raises `InvalidDatabaseUrl`.
    """

    def __init__(self, url: str, *, connections: int = 20) -> None:
        self.dialect: Literal["sqlite", "postgresql"]
        self.location: str
        """Where it is: a path for SQLite, a DSN for PostgreSQL."""
        self.dialect, self.location = read_url(url)
        if self.dialect == "sqlite":
            self._reader, self._writer = _sqlite_engines(self.location, connections)
        else:
            self._reader = self._writer = _postgresql_engine(self.location, connections)
        # A read sees one state of the database throughout, and cannot write: on SQLite by `query_only`.
        options: StoredValues = {}
        if self.dialect == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._read = async_sessionmaker(self._reader.execution_options(**options), autoflush=False)
        self._write = async_sessionmaker(self._writer, expire_on_commit=False)
        self._listeners: list[Callable[[Topics], None]] = []
        if traces.enabled():
            for engine in self.engines:
                _trace(engine)

    @property
    def engines(self) -> tuple[AsyncEngine, ...]:
        """What statements go through, for those who watch them."""
        return (self._reader,) if self._reader is self._writer else (self._reader, self._writer)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Reads: all of them see the database as it was at the first one. Writing in it is an error."""
        async with self._read() as session:
            yield session

    async def interrupt(self, session: AsyncSession) -> None:
        """Makes the statement that a session runs fail, for those who then cancel the task that waits for it: on
        PostgreSQL that is enough, but SQLite would go on in its thread."""
        if self.dialect == "sqlite":
            connection = await (await session.connection()).get_raw_connection()
            if connection.driver_connection is not None:
                await connection.driver_connection.interrupt()

    @asynccontextmanager
    async def write(self, tenant: Tenant | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises.

        With a `tenant`, such transactions of this tenant take turns, so that what one has looked up (a free name, no
        circle, the present etag) still holds when it writes. On SQLite all writers take turns in any case.
        Never open one inside another in the same task: SQLite has one writer, and the inner one would wait for ever.
        """
        async with self._write() as session:
            if tenant is not None and self.dialect == "postgresql":
                await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _lock_number(tenant)})
            if WITNESS.get() is not None:
                # The session itself forgets a row that nobody else refers to.
                event.listen(session.sync_session, "pending_to_persistent", _keep_added)
            yield session
            witness = WITNESS.get()
            if witness is not None:
                await witness.before_commit(session)
            await session.commit()
            if witness is not None:
                witness.committed()
            topics: Topics = frozenset(session.info.get("topics", ()))
        if topics:
            for listener in tuple(self._listeners):
                listener(topics)

    def on_commit(self, listener: Callable[[Topics], None]) -> Callable[[], None]:
        """Calls `listener` with what each transaction announced, after its commit. Returns how to take it off again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def migrate(self, target: str = NEWEST) -> None:
        """Brings the tables to the newest form, or to an earlier one; several processes may do it at once.

        Raises `MigrationRefused`.
        """
        if self.dialect == "sqlite":
            async with self._writer.connect() as connection:
                autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await autocommit.run_sync(use_wal)
        async with self._writer.begin() as connection:
            await connection.run_sync(migrate, target)

    async def has_tables(self) -> bool:
        async with self._reader.connect() as connection:
            return bool(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))

    async def misfit(self) -> str | None:
        """Why this program cannot work with the tables as they are; None when it can."""
        async with self._reader.connect() as connection:
            return await connection.run_sync(misfit)

    def pools(self) -> dict[str, PoolState]:
        """The connections of this process, by what they are for."""
        names = ("all",) if self._reader is self._writer else ("read", "write")
        pools = (engine.pool for engine in self.engines)
        return {
            name: PoolState(pool.size(), pool.checkedout())
            for name, pool in zip(names, pools, strict=True)
            if isinstance(pool, QueuePool)
        }

    async def overwrite_deleted(self) -> None:
        """Sees to it that what was deleted is in no page of SQLite's file or log, as far as no reader holds them up."""
        if self.dialect == "sqlite":
            async with self._writer.connect() as connection:
                autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await autocommit.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    async def differences(self) -> list[str]:
        """What differs from what this program creates: tables, columns, indexes and, on SQLite, the file itself."""
        async with self._reader.connect() as connection:
            problems = await connection.run_sync(differences)
            if self.dialect == "sqlite":
                checked = await connection.exec_driver_sql("PRAGMA quick_check(10)")
                problems += [f"SQLite finds: {line}" for (line,) in checked if line != "ok"]
            return problems

    async def dispose(self) -> None:
        for engine in self.engines:
            await engine.dispose()


def _keep_added(session: Session, row: object) -> None:
    session.info.setdefault("added", []).append(row)


def added_rows(session: AsyncSession) -> list[object]:
    """The rows that this transaction, which has a witness, has added."""
    return [*session.new, *session.info.get("added", ())]


async def connect_postgresql(dsn: str) -> asyncpg.Connection:
    """A connection of the driver, which reads all of libpq's forms of a DSN itself. Raises `DatabaseAway`."""
    deadline = time.monotonic() + BUSY_SECONDS
    try:
        while True:
            try:
                return await asyncpg.connect(dsn, timeout=10)
            except asyncpg.TooManyConnectionsError:
                # The server's limit is shared with other processes: this one queues for its place as well.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_FULL_SECONDS)
    except (OSError, TimeoutError) as error:
        raise DatabaseAway(f"PostgreSQL does not answer: {error}") from error


def _lock_number(tenant: Tenant) -> int:
    name = f"{tenant.organisation}\0{tenant.sandbox}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), signed=True)


def announce(session: AsyncSession, *topics: object) -> None:
    """Notes what this transaction changes; `Database.write` tells the listeners once it is committed."""
    session.info.setdefault("topics", set()).update(topics)


def is_unavailable(error: BaseException) -> bool:
    """Whether an error means that the database is away or busy: the same may succeed a little later."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, _AWAY)
    cause = error.orig.__cause__ if error.orig is not None else None
    busy = isinstance(error.orig, sqlite3.OperationalError) and "locked" in str(error.orig)
    return error.connection_invalidated or busy or isinstance(cause, _AWAY)


_AWAY = (
    PoolTimeout,
    ConnectionError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


def read_url(url: str) -> tuple[Literal["sqlite", "postgresql"], str]:
    """The kind of database and where it is. Raises `InvalidDatabaseUrl`."""
    example = "use sqlite:///path/to/file.db or postgresql://user:password@host:5432/name"
    if url.startswith(("postgresql://", "postgres://")):
        return "postgresql", url
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidDatabaseUrl(f"{url!r} is not a database URL: {example}") from None
    if parsed.drivername != "sqlite":
        raise InvalidDatabaseUrl(f"databases of kind {parsed.drivername!r} are not supported: {example}")
    if parsed.database in {None, "", ":memory:"}:
        raise InvalidDatabaseUrl(f"{url!r} names no file, and the database must outlive a connection: {example}")
    return "sqlite", str(parsed.database)


def _sqlite_engines(path: str, connections: int) -> tuple[AsyncEngine, AsyncEngine]:
    """Readers side by side, and one writer: a process's writers queue for its connection, not for the file."""
    url = make_url("sqlite+aiosqlite://").set(database=path)
    reader = create_async_engine(url, pool_size=connections, max_overflow=0, **_OPTIONS)
    writer = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS, **_OPTIONS)
    for engine, begin, query_only in ((reader, "BEGIN", "ON"), (writer, "BEGIN IMMEDIATE", "OFF")):
        _govern_sqlite(engine, begin, query_only)
    return reader, writer


def _govern_sqlite(engine: AsyncEngine, begin: str, query_only: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: it would begin them too late, and never for reads.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Of what is deleted nothing stays in a page: it may be about somebody who is to be erased.
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute(f"PRAGMA query_only = {query_only}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        # A transaction that begins with a read cannot become a writer when another one wrote meanwhile.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)


def _trace(engine: AsyncEngine) -> None:
    """A span for each statement: its text, without values."""

    def begin(_connection: Any, _cursor: object, statement: str, _parameters: object, context: Any, many: bool) -> None:
        verb = statement.split(None, 1)[0].upper() if statement else "SQL"
        context.span = traces.begin(f"SQL {verb}", system=engine.dialect.name, statement=statement, many=many)

    def end(*arguments: Any) -> None:
        if (span := getattr(arguments[-2], "span", None)) is not None:
            span.end()

    def fail(failure: Any) -> None:
        if (span := getattr(failure.execution_context, "span", None)) is not None:
            span.end()

    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)
    event.listen(engine.sync_engine, "handle_error", fail)


def _postgresql_engine(dsn: str, connections: int) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_postgresql(dsn),
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        **_OPTIONS,
    )


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _from_json(value: Any) -> object:
    """SQLite makes a number of a text that is nothing but one."""
    return value if isinstance(value, int | float) else orjson.loads(value)


_OPTIONS: StoredValues = {
    "json_serializer": _to_json,
    "json_deserializer": _from_json,
    # Errors go to the log, which holds no data of people.
    "hide_parameters": True,
}
