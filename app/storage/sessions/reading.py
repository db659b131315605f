"""Reads without the ORM: statements compiled once, whose rows come directly from the driver.

SQLAlchemy takes ten times as long as the driver to open a session, to execute a statement and to create rows. A
`ReadSession` therefore holds a pooled connection, and creates a SQLAlchemy session only when it is used as one.
Frequent statements are `Prepared` and go directly to the driver. Both ways see the same transaction.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, ClassVar, Final, Self, TypeAlias, cast

import asyncpg
from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.util.concurrency import greenlet_spawn

from app.storage.columns import StoredValues
from app.storage.tenancy import AnyRow, AnySelect

Convert: TypeAlias = Callable[[Any], object]
Layout: TypeAlias = Mapping[str, tuple[int, Convert | None]]
"""The index of each column in the driver's rows, and the function that converts the raw value; None if no conversion
is needed."""

_DRIVER_ERRORS: Final = asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error
_CONFLICTS: Final = asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError
_FLOAT8: Final = 701
"""OID of PostgreSQL's type `float8`, which all our columns with fractions have."""
_OFTEN: Final = 2
"""The use from which on a statement is compiled: statements built for one call, with its filter, are used once."""


AnyStatement: TypeAlias = AnySelect | UpdateBase


class DriverRow:
    """Base class of the rows of a prepared statement, which have their columns as attributes."""

    __slots__ = ()
    LAYOUT: ClassVar[Layout]


class _Driven:
    """A statement compiled for one driver."""

    def __init__(self, statement: AnyStatement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text: Final = str(compiled)
        self.takes_lists: Final = bool(getattr(compiled, "post_compile_params", None))
        """Whether the SQL text depends on the number of values of a parameter; SQLAlchemy then executes it."""
        defaults = compiled.params
        self._parameters: Final = [
            (name, defaults[name], compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        layout = {
            column.name: (at, column.type.dialect_impl(dialect).result_processor(dialect, _FLOAT8))
            for at, column in enumerate(statement.exported_columns)
        }
        self.row: Final = _row_class(asyncpg.Record if dialect.name == "postgresql" else tuple, layout)

    def arguments(self, values: StoredValues) -> list[object]:
        arguments = []
        for name, default, process in self._parameters:
            value = values.get(name, default)
            arguments.append(value if process is None else process(value))
        return arguments


def _row_class(base: type, layout: Layout) -> type[Any]:
    columns = {name: property(_getter(at, convert)) for name, (at, convert) in layout.items()}
    return type("Row", (base, DriverRow), {"__slots__": (), "LAYOUT": layout, **columns})


def _getter(at: int, convert: Convert | None) -> Convert:
    return itemgetter(at) if convert is None else lambda row: convert(row[at])


class Prepared:
    """A statement that is built once. It has the parameters of `within_any`, and others that its caller supplies.

    One that changes rows returns those that RETURNING names.
    """

    def __init__(self, statement: AnyStatement) -> None:
        self.statement: Final = statement
        # SQLAlchemy takes the parameters of a changing statement for columns, so it never executes one.
        self._uses = _OFTEN if isinstance(statement, UpdateBase) else 0
        self._driven: dict[str, _Driven] = {}

    def driven(self, dialect: Dialect) -> _Driven | None:
        """The statement compiled for a driver; None if SQLAlchemy must execute it."""
        driven = self._driven.get(dialect.name)
        if driven is None:
            self._uses += 1
            if self._uses < _OFTEN:
                return None
            driven = self._driven[dialect.name] = _Driven(self.statement, dialect)
        return None if driven.takes_lists else driven


class ReadSession(AsyncSession):
    """Reads on one pooled connection. All reads see the snapshot of the first statement, except those that are `alone`.

    Created by `Database.session`. `sync_session`, which SQLAlchemy's methods use, is created on first use.
    """

    def __init__(self, engine: AsyncEngine, pooled: Any) -> None:
        # Does not call `AsyncSession.__init__`, which would create the session at once.
        self._engine = engine.sync_engine
        self._pooled = pooled
        self._adapter = pooled.dbapi_connection
        self._driver = pooled.driver_connection
        self._connection: Connection | None = None
        self._broken = False
        self.dialect: Final = self._engine.dialect
        self._postgresql = self.dialect.name == "postgresql"
        self._prepare_connection()

    def _prepare_connection(self) -> None:
        if self._postgresql:
            self._adapter.set_isolation_level("repeatable_read")
            self._adapter.readonly = True

    def _new_session(self) -> Session:
        return Session(bind=self._connection, autoflush=False)

    def __getattr__(self, name: str) -> Any:
        """Creates SQLAlchemy's session on the first access to `sync_session`."""
        if name not in {"sync_session", "_proxied"}:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        self._connection = Connection(self._engine, connection=self._pooled)
        self.sync_session = self._proxied = self._assign_proxied(self._new_session())
        return self.sync_session

    @classmethod
    async def open(cls, engine: AsyncEngine) -> Self:
        return cls(engine, await greenlet_spawn(engine.sync_engine.pool.connect))

    async def rows(self, prepared: Prepared, values: StoredValues, *, alone: bool = False) -> Sequence[AnyRow]:
        """Rows of a prepared statement. If it is the `alone` read, it runs without a transaction.

        Raises SQLAlchemy's exceptions.
        """
        driven = prepared.driven(self.dialect)
        if driven is None:
            return list(await self.execute(prepared.statement, values))
        arguments = driven.arguments(values)
        with self._driving(driven.text, arguments):
            if not (alone or self._in_transaction):
                await self._begin()
            if self._postgresql:
                rows = await self._driver.fetch(driven.text, *arguments, record_class=driven.row)
            else:
                rows = list(map(driven.row, await self._driver.execute_fetchall(driven.text, arguments)))
        return cast("Sequence[AnyRow]", rows)

    @contextmanager
    def _driving(self, text: str, arguments: Sequence[object]) -> Iterator[None]:
        """A statement that goes to the driver in the block: its listeners, and SQLAlchemy's exceptions for errors."""
        for listener in self._engine.dispatch.before_cursor_execute:
            listener(None, None, text, arguments, self, False)
        try:
            yield
        except _DRIVER_ERRORS as error:
            away = self._postgresql and self._driver.is_closed()
            kind = IntegrityError if isinstance(error, _CONFLICTS) else OperationalError
            raise kind(text, None, error, hide_parameters=True, connection_invalidated=away) from error
        except BaseException:
            # Interrupted: the state of the connection is unknown.
            self._broken = True
            raise
        finally:
            for listener in self._engine.dispatch.after_cursor_execute:
                listener(None, None, text, arguments, self, False)

    @property
    def _in_transaction(self) -> bool:
        return bool(self._driver.is_in_transaction() if self._postgresql else self._driver.in_transaction)

    async def _begin(self) -> None:
        if not self._postgresql:
            await self._driver.execute("BEGIN")
            return
        transaction = self._driver.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        # Hands the transaction to SQLAlchemy's adapter, so that its session joins and ends it.
        self._adapter._transaction = transaction

    async def interrupt(self) -> None:
        """Aborts the running statement on SQLite, which would otherwise continue in its thread."""
        if not self._postgresql:
            await self._driver.interrupt()

    async def close(self) -> None:
        """Returns the connection to the pool. It is reset first, because another session may get it at once."""
        if self._connection is not None or self._broken or self._in_transaction:
            await asyncio.shield(greenlet_spawn(self._end))
        else:
            self._reset()
            self._pooled.close()

    def _end(self) -> None:
        with suppress(Exception):
            if not self._broken:
                if self._connection is None:
                    self._adapter.rollback()
                else:
                    self.sync_session.close()
                self._reset()
                (self._connection or self._pooled).close()
                return
        self._pooled.invalidate()

    def _reset(self) -> None:
        if self._postgresql:
            self._adapter.set_isolation_level(None)
            self._adapter.readonly = False


def dialect_of(session: AsyncSession) -> str:
    """The name of a session's dialect."""
    return session.dialect.name if isinstance(session, ReadSession) else session.get_bind().dialect.name


async def read(
    session: AsyncSession, prepared: Prepared, values: StoredValues, *, alone: bool = False
) -> Sequence[AnyRow]:
    """Rows as from `ReadSession.rows`; SQLAlchemy executes the statement in other sessions."""
    if isinstance(session, ReadSession):
        return await session.rows(prepared, values, alone=alone)
    return list(await session.execute(prepared.statement, values))
