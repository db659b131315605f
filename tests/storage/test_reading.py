"""Reads that go to the driver: the same connection, transaction and rows as SQLAlchemy's."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.columns import columns
from app.storage.database import Database, is_unavailable
from app.storage.sessions.reading import Prepared, ReadSession, read
from app.storage.tables.folders import FolderRow

START = datetime(2026, 1, 1, tzinfo=UTC)
FOLDERS = columns(FolderRow)
RUNNING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(%' "
    "AND datname = current_database()"
)
BY_NAME = Prepared(select(*FOLDERS).where(FOLDERS.name == bindparam("folder_name")))


async def make(database: Database, *names: str) -> None:
    async with database.write() as session:
        for name in names:
            session.add(
                FolderRow(
                    organisation="o", sandbox="s", id=name, name=name, namespace="n", path=f"/{name}", revision=1,
                    created_by="u", last_modified_by="u", created_at=START, updated_at=START,
                )
            )  # fmt: skip


async def names(session: AsyncSession, name: str, **how: Any) -> list[str]:
    return [row.name for row in await read(session, BY_NAME, {"folder_name": name}, **how)]


async def test_rows_of_the_driver_are_those_of_sqlalchemy(database: Database) -> None:
    await make(database, "a")
    async with database.session() as session:
        (plain,) = await session.execute(BY_NAME.statement, {"folder_name": "a"})
        for _ in range(3):
            (row,) = await session.rows(BY_NAME, {"folder_name": "a"})
            assert [getattr(row, column.name) for column in FOLDERS] == list(plain)
    assert not isinstance(row, type(plain)), "the last one came from the driver"


async def test_both_ways_see_one_state(database: Database) -> None:
    counted = select(func.count()).select_from(FolderRow)
    async with database.session() as session:
        for _ in range(2):
            assert await names(session, "late") == []
        await make(database, "late")
        assert await names(session, "late") == []
        assert (await session.execute(counted)).scalar_one() == 0
    async with database.session() as session:
        assert (await session.execute(counted)).scalar_one() == 1
        await make(database, "later")
        assert await names(session, "later") == []


async def test_a_read_that_is_alone_begins_nothing(database: Database) -> None:
    for _ in range(2):  # SQLAlchemy executes a statement that is new.
        async with database.session() as session:
            assert await names(session, "late") == []
    async with database.session() as session:
        assert await names(session, "late", alone=True) == []
        await make(database, "late")
        assert await names(session, "late", alone=True) == ["late"]


async def test_nothing_is_left_of_a_read_on_its_connection(database: Database) -> None:
    """Each way of ending one: the next user of the connection writes."""

    async def nothing(_session: ReadSession) -> None:
        return None

    async def driver(session: ReadSession) -> None:
        assert [await names(session, "x") for _ in range(2)] == [[], []]

    async def sqlalchemy(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))

    async def wrong(session: ReadSession) -> None:
        missing = Prepared(select(text("missing")).select_from(FolderRow))
        for _ in range(2):
            with pytest.raises(Exception, match="missing"):
                await session.rows(missing, {})

    for number, use in enumerate((nothing, driver, sqlalchemy, wrong)):
        async with database.session() as session:
            await use(session)
        await make(database, f"after {number}")
    for pool in database.pools().values():
        assert pool.used == 0


@pytest.mark.parametrize("way", ["driver", "sqlalchemy"])
async def test_who_waits_for_a_connection_can_write_with_it(database_url: str, way: str) -> None:
    """A connection is given on in the very moment in which it comes back."""
    database = Database(database_url, connections=1)
    await database.migrate()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def reader() -> None:
        async with database.session() as session:
            for _ in range(2):
                await (names(session, "x") if way == "driver" else session.execute(text("SELECT 1")))
            entered.set()
            await leave.wait()

    reading = asyncio.create_task(reader())
    await entered.wait()
    writing = asyncio.create_task(make(database, "written"))
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(reading, writing)
    async with database.session() as session:
        assert await names(session, "written") == ["written"]
    await database.dispose()


async def test_errors_of_the_driver_are_sqlalchemys(database: Database) -> None:
    missing = Prepared(select(text("missing")).select_from(FolderRow))
    async with database.session() as session:
        with pytest.raises(Exception, match="missing"):
            await session.rows(missing, {})
    async with database.session() as session:
        with pytest.raises(OperationalError) as raised:
            await session.rows(missing, {})
    assert not is_unavailable(raised.value)


async def test_a_read_that_is_cut_short_gives_no_connection_on(database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("SQLite goes on in its thread: see `interrupt`")
    slow = Prepared(select(func.pg_sleep(bindparam("seconds"))))
    async with database.session() as session:
        await session.rows(slow, {"seconds": 0})
        reading = asyncio.create_task(session.rows(slow, {"seconds": 600}))
        async with database.session() as other:
            running = 0
            while not running:
                running = (await other.execute(RUNNING)).scalar_one()
                await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await make(database, "after")
    assert all(pool.used == 0 for pool in database.pools().values())
