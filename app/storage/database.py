"""The database: connections, transactions and the differences between SQLite and PostgreSQL; knows no table."""

import asyncio
import hashlib
import math
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import asyncpg
import orjson
from sqlalchemy import Connection, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from app import traces
from app.errors import DatabaseAway, InvalidDatabaseUrl
from app.scope import Tenant
from app.storage.columns import StoredValues
from app.storage.migrate import NEWEST, differences, migrate, misfit, use_wal
from app.storage.sessions.reading import ReadSession
from app.storage.sessions.writing import WriteSession

DatabaseSession = AsyncSession
"""The session type, for modules that do not import SQLAlchemy."""
Topics = frozenset[Any]
BUSY_SECONDS = 30
"""How long a SQLite writer waits for a writer in another process."""


_FULL_SECONDS = 0.1
"""Seconds between connection attempts while the server has no free connection slot."""


_RESTED_SECONDS = 5.0
"""Idle time after which a PostgreSQL connection is tested before use."""


_SILENCE: dict[str, int] = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""TCP options that end a connection after about 25 seconds without a sign of life from the server's host."""


class Witness(Protocol):
    """Adds rows to the transactions of one unit of work, so that they commit together or not at all."""

    async def before_commit(self, session: WriteSession) -> None: ...

    def committed(self) -> None: ...


WITNESS: ContextVar[Witness | None] = ContextVar("witness", default=None)
"""The witness of the current task and of the tasks it starts."""


@contextmanager
def unwitnessed() -> Iterator[None]:
    """Runs the block's transactions without a witness."""
    token = WITNESS.set(None)
    try:
        yield
    finally:
        WITNESS.reset(token)


@dataclass(frozen=True, slots=True)
class PoolState:
    """Maximum number of connections, and the number in use."""

    limit: int
    used: int


class Database:
    """A SQLite or PostgreSQL database, for one event loop. Close it with `dispose`.

    `url` is `sqlite:///path/to/file.db` or a plain `postgresql://user:password@host/name` in libpq's form; a socket
    (`?host=/folder`) works too. Raises `InvalidDatabaseUrl`.
    """

    def __init__(self, url: str, *, connections: int = 20) -> None:
        self.dialect: Literal["sqlite", "postgresql"]
        self.location: str
        """Location: a path for SQLite, a DSN for PostgreSQL."""
        self.dialect, self.location = read_url(url)
        if self.dialect == "sqlite":
            self._reader, self._writer = _sqlite_engines(self.location, connections)
        else:
            self._reader = self._writer = _postgresql_engine(self.location, connections)
        self._listeners: list[Callable[[Topics], None]] = []
        if traces.enabled():
            for engine in self.engines:
                _trace(engine)

    @property
    def engines(self) -> tuple[AsyncEngine, ...]:
        """The SQLAlchemy engines, for instrumentation."""
        return (self._reader,) if self._reader is self._writer else (self._reader, self._writer)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ReadSession]:
        """A read-only session. All its reads see the database as of the first one; writing is an error."""
        session = await ReadSession.open(self._reader)
        try:
            yield session
        finally:
            await session.close()

    @asynccontextmanager
    async def write(self, tenant: Tenant | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction: commits when the block ends, rolls back when it raises.

        With a `tenant`, transactions of the same tenant run one at a time, so that what one has checked (a free name,
        no cycle, the current etag) still holds when it writes. On SQLite all writers are serialised anyway. Never nest
        two in the same task: SQLite has one writer, so the inner one would wait forever.
        """
        session = await WriteSession.open(self._writer)
        try:
            await session.start(None if tenant is None else _lock_number(tenant))
            yield session
            witness = WITNESS.get()
            if witness is not None:
                await witness.before_commit(session)
            await session.commit()
            if witness is not None:
                witness.committed()
        finally:
            await session.close()
        if session.topics:
            topics: Topics = frozenset(session.topics)
            for listener in tuple(self._listeners):
                listener(topics)

    def on_commit(self, listener: Callable[[Topics], None]) -> Callable[[], None]:
        """Calls `listener` with each transaction's topics after its commit. Returns a function that removes the
        listener."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def migrate(self, target: str = NEWEST) -> None:
        """Migrates the schema to the newest version, or to an earlier one. Several processes may call it at once.

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
        """Why this program cannot use the database's schema version; None if it can."""
        async with self._reader.connect() as connection:
            return await connection.run_sync(misfit)

    def pools(self) -> dict[str, PoolState]:
        """The connection pools of this process, by purpose."""
        names = ("all",) if self._reader is self._writer else ("read", "write")
        pools = (engine.pool for engine in self.engines)
        return {
            name: PoolState(pool.size(), pool.checkedout())
            for name, pool in zip(names, pools, strict=True)
            if isinstance(pool, QueuePool)
        }

    async def overwrite_deleted(self) -> None:
        """Checkpoints and truncates SQLite's write-ahead log: neither the file nor the log then holds deleted data,
        unless an open reader prevents it."""
        if self.dialect == "sqlite":
            async with self._writer.connect() as connection:
                autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await autocommit.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    async def differences(self) -> list[str]:
        """Differences from the schema that this program creates: tables, columns, indexes and, on SQLite, file
        corruption."""
        async with self._reader.connect() as connection:
            problems = await connection.run_sync(differences)
            if self.dialect == "sqlite":
                checked = await connection.exec_driver_sql("PRAGMA quick_check(10)")
                problems += [f"SQLite finds: {line}" for (line,) in checked if line != "ok"]
            return problems

    async def dispose(self) -> None:
        for engine in self.engines:
            await engine.dispose()


async def connect_postgresql(dsn: str) -> asyncpg.Connection:
    """A raw asyncpg connection; asyncpg parses every form of libpq DSN. Raises `DatabaseAway`."""
    deadline = time.monotonic() + BUSY_SECONDS
    try:
        while True:
            try:
                connection = await asyncpg.connect(dsn, timeout=10)
                end_after_silence(connection)
                return connection
            except asyncpg.TooManyConnectionsError:
                # The server's connection limit is shared with other processes, so wait for a free slot.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_FULL_SECONDS)
    except (OSError, TimeoutError) as error:
        raise DatabaseAway(f"PostgreSQL does not answer: {error}") from error


def end_after_silence(connection: asyncpg.Connection) -> None:
    """Ends a connection when its host has vanished.

    Without this, a statement waits a quarter of an hour for a host that vanished, and a listener for ever.
    """
    transport = connection._transport  # asyncpg has no option for it
    used = transport.get_extra_info("socket")
    if used.family == socket.AF_UNIX or transport.is_closing():  # the next statement will say that it has ended
        return
    used.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SILENCE.items():
        if hasattr(socket, name):  # not on every system
            used.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@lru_cache(1_000)
def _lock_number(tenant: Tenant) -> int:
    name = f"{tenant.organisation}\0{tenant.sandbox}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), signed=True)


def is_unavailable(error: BaseException) -> bool:
    """Whether an error means that the database is unavailable or busy, so that a retry may succeed."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, _AWAY)
    cause = error.orig if error.orig is None or error.orig.__cause__ is None else error.orig.__cause__
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
    asyncpg.IdleInTransactionSessionTimeoutError,
)


def read_url(url: str) -> tuple[Literal["sqlite", "postgresql"], str]:
    """The database's kind and location. Raises `InvalidDatabaseUrl`."""
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
    """Concurrent readers and one writer: writers of a process queue for its connection rather than for the file
    lock."""
    url = make_url("sqlite+aiosqlite://").set(database=path)
    reader = create_async_engine(url, pool_size=connections, max_overflow=0, pool_reset_on_return=None, **_OPTIONS)
    writer = create_async_engine(
        url, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS, pool_reset_on_return=None, **_OPTIONS
    )
    for engine, begin, query_only in ((reader, "BEGIN", "ON"), (writer, "BEGIN IMMEDIATE", "OFF")):
        _govern_sqlite(engine, begin, query_only)
    return reader, writer


def _govern_sqlite(engine: AsyncEngine, begin: str, query_only: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver must not begin transactions itself: it would begin them too late, and never for reads.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Overwrite deleted data in the pages: it may belong to a person who is to be erased.
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute(f"PRAGMA query_only = {query_only}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        # A transaction that begins with a read cannot upgrade to a write after another one has written.
        begun = bool(getattr(connection.connection.driver_connection, "in_transaction", False))
        if not begun and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)


def _trace(engine: AsyncEngine) -> None:
    """Creates a span for each statement, with its text but without values."""

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
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_postgresql(dsn),
        pool_size=connections,
        max_overflow=0,
        **_OPTIONS,
    )
    _look_before_use(engine)
    return engine


def _look_before_use(engine: AsyncEngine) -> None:
    """Replaces closed connections. A recently used one is not tested, since the driver notices its end."""

    @event.listens_for(engine.sync_engine, "checkin")
    def rest(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def look(connection: Any, record: ConnectionPoolEntry, _pooled: object) -> None:
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - record.info.get("rests_since", math.inf) > _RESTED_SECONDS:
            try:
                connection.ping()
            except Exception as error:
                raise InvalidatePoolError from error


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _from_json(value: Any) -> object:
    """SQLite returns a JSON text that is a plain number as a number."""
    return value if isinstance(value, int | float) else orjson.loads(value)


_OPTIONS: StoredValues = {
    "json_serializer": _to_json,
    "json_deserializer": _from_json,
    # Errors are logged, and logs must not contain personal data.
    "hide_parameters": True,
}
