"""Writes that go to the driver: one transaction with SQLAlchemy's session, whole or not at all."""

import asyncio
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import bindparam, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.scope import Tenant
from app.storage.columns import columns, table
from app.storage.database import Database, is_unavailable
from app.storage.sessions import writing
from app.storage.sessions.reading import Prepared, read
from app.storage.sessions.writing import WriteSession, insert_rows, update_row
from app.storage.tables.audiences import AudienceRow, LifecycleState
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod, MergePolicyRow
from app.storage.topics import STREAMS, publish

START = datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC)
SHARED: dict[str, Any] = {
    "organisation": "o", "sandbox": "s", "created_by": "u", "last_modified_by": "u", "created_at": START,
    "updated_at": START,
}  # fmt: skip
POLICIES, AUDIENCES = columns(MergePolicyRow), columns(AudienceRow)


def policy(id: str) -> MergePolicyRow:
    return MergePolicyRow(
        **SHARED, id=id, name=id, method=MergeMethod.TIMESTAMP_ORDERED, identity_graph=IdentityGraph.NONE,
        datasets=["d", "é\n"], is_default=False, revision=1,
    )  # fmt: skip


def audience(id: str, **changed: Any) -> AudienceRow:
    values = {"audience_id": id, "name": id, "labels": ["x"], "audience_meta": {"a": [1, None]}, **changed}
    return AudienceRow(**SHARED, id=id, **values)


async def stored(database: Database) -> list[str]:
    async with database.session() as session:
        return list(await session.scalars(select(POLICIES.id).order_by(POLICIES.id)))


async def test_rows_have_the_columns_that_the_orm_gives_them(database: Database) -> None:
    """With defaults, JSON, enums, instants and nulls; one row or several."""
    late = {
        "lifecycle_state": LifecycleState.DRAFT,
        "merge_policy_id": "p",
        "expires_at": START,
        "total_profiles": 2**40,
    }
    async with database.write() as session:
        await insert_rows(session, policy("p"))
        await insert_rows(session, audience("one", **late))
        await insert_rows(session, audience("two", **late), audience("three"))
        session.add(audience("one by the ORM", **late))
        session.add(audience("three by the ORM"))
    async with database.session() as session:
        rows = {row.id: row for row in await session.execute(select(*AUDIENCES))}
    assert len(rows) == 5
    for id_, other in (("one", "one by the ORM"), ("two", "one by the ORM"), ("three", "three by the ORM")):
        for column in AUDIENCES:
            if column.name not in {"id", "audience_id", "name"}:
                assert getattr(rows[id_], column.name) == getattr(rows[other], column.name), column.name


async def test_both_ways_write_in_one_transaction(database: Database) -> None:
    """The driver's statements see what the session has not yet flushed, and the reverse; an exception undoes both."""
    by_id = Prepared(select(POLICIES.id).order_by(POLICIES.id))

    async def write_both_ways() -> None:
        async with database.write(Tenant("o", "s")) as session:
            session.add(policy("a"))
            await insert_rows(session, audience("of a", merge_policy_id="a"))
            assert [row.id for row in await read(session, by_id, {})] == ["a"]
            await insert_rows(session, policy("b"))
            assert list(await session.scalars(select(POLICIES.id).order_by(POLICIES.id))) == ["a", "b"]
            session.add(policy("c"))
            assert [row.id for row in await read(session, by_id, {})] == ["a", "b", "c"]
            raise ZeroDivisionError

    for _ in range(2):  # the first time SQLAlchemy executes a prepared statement, then the driver
        with pytest.raises(ZeroDivisionError):
            await write_both_ways()
        assert await stored(database) == []
    async with database.write(Tenant("o", "s")) as session:
        await insert_rows(session, policy("a"))
        session.add(policy("b"))
    assert await stored(database) == ["a", "b"]
    assert all(pool.used == 0 for pool in database.pools().values())


async def test_a_changing_statement_returns_rows(database: Database) -> None:
    named = update(table(MergePolicyRow)).where(POLICIES.id == bindparam("changed"))
    renamed = Prepared(named.values(revision=POLICIES.revision + 1).returning(POLICIES.revision, POLICIES.datasets))
    async with database.write() as session:
        await insert_rows(session, policy("a"), policy("b"))
        for revision in (2, 3):
            (row,) = await read(session, renamed, {"changed": "a"})
            assert (row.revision, row.datasets) == (revision, ["d", "é\n"])
        assert list(await read(session, renamed, {"changed": "nobody"})) == []
    async with database.session() as session:
        assert list(await session.scalars(select(POLICIES.revision).order_by(POLICIES.id))) == [3, 1]


async def test_conflicts_are_sqlalchemys(database: Database) -> None:
    async with database.write() as session:
        await insert_rows(session, policy("a"))
    for rows in ((policy("a"),), (policy("b"), policy("b")), (audience("x", merge_policy_id="missing"),)):
        with pytest.raises(IntegrityError):
            async with database.write() as session:
                await insert_rows(session, *rows)
        assert await stored(database) == ["a"]


async def test_a_transaction_that_failed_never_passes_for_committed(database: Database) -> None:
    if database.dialect == "sqlite":
        pytest.skip("SQLite undoes the failed statement alone")

    async def ignore_the_error() -> None:
        async with database.write() as session:
            await insert_rows(session, policy("a"))
            with pytest.raises(IntegrityError):
                await insert_rows(session, policy("a"))

    with pytest.raises(RuntimeError, match="nothing was committed"):
        await ignore_the_error()
    assert await stored(database) == []


async def test_a_part_can_be_undone(database: Database) -> None:
    async with database.write() as session:
        await insert_rows(session, policy("a"))
        with suppress(IntegrityError):
            async with session.begin_nested():
                await insert_rows(session, policy("b"))
                await insert_rows(session, policy("a"))
        await insert_rows(session, policy("c"))
    assert await stored(database) == ["a", "c"]


async def test_after_a_rollback_the_transaction_begins_anew(database: Database) -> None:
    for _ in range(2):
        async with database.write() as session:
            await insert_rows(session, policy("a"))
            await session.rollback()
            await session.execute(text("SELECT 1"))
            await insert_rows(session, policy("b"))
            await session.rollback()
    assert await stored(database) == []


async def test_who_is_cut_short_while_waiting_leaves_nothing(database: Database) -> None:
    """The second waits for the first: on PostgreSQL for the lock of the tenant, on SQLite for the connection."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def write(id_: str, until: asyncio.Event | None = None) -> None:
        async with database.write(Tenant("o", "s")) as session:
            entered.set()
            await insert_rows(session, policy(id_))
            if until is not None:
                await until.wait()

    first = asyncio.create_task(write("first", leave))
    await entered.wait()
    second = asyncio.create_task(write("second"))
    waiting = database.dialect == "sqlite"
    while not waiting:
        waiting = await _waits(database)
        await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    leave.set()
    await first
    await write("third")
    assert await stored(database) == ["first", "third"]
    assert all(pool.used == 0 for pool in database.pools().values())


async def _waits(database: Database) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with database.session() as session:
        return bool((await session.execute(text(waiting))).scalar_one())


async def test_the_ids_of_inserted_rows_are_known_until_the_commit(database: Database) -> None:
    async with database.write() as session:
        assert isinstance(session, WriteSession)
        await insert_rows(session)
        assert session.added_ids == []
        await insert_rows(session, policy("b"), policy("a"))
        assert session.added_ids == ["b", "a"]


async def test_an_update_is_of_one_row_of_one_tenant(database: Database) -> None:
    async with database.write() as session:
        elsewhere = policy("a").model_copy(update={"sandbox": "other"})
        await insert_rows(session, policy("a"), policy("b"), elsewhere)
        await update_row(session, MergePolicyRow, Tenant("o", "s"), "a", {"name": "new", "revision": 2})
    async with database.session() as session:
        statement = select(POLICIES.sandbox, POLICIES.id, POLICIES.name, POLICIES.revision)
        rows = {tuple(row) for row in await session.execute(statement)}
    assert rows == {("s", "a", "new", 2), ("s", "b", "b", 1), ("other", "a", "a", 1)}


async def test_a_transaction_on_sqlite_keeps_other_processes_from_writing(database_url: str) -> None:
    """From its beginning: one that has read before another wrote could not write any more."""
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL locks the tenant")
    database = Database(database_url)
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=0)) as other:
        async with database.write():
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
    await database.dispose()


async def test_a_read_session_neither_inserts_nor_publishes(database: Database) -> None:
    async with database.session() as session:
        with pytest.raises(TypeError, match="ReadSession cannot insert"):
            await insert_rows(session, policy("a"))
        with pytest.raises(TypeError, match="ReadSession cannot publish"):
            await publish(session, STREAMS)
        with pytest.raises(DBAPIError):
            await session.execute(text("DELETE FROM merge_policy"))
    assert await stored(database) == []


async def test_topics_are_announced_once_after_the_commit(database: Database) -> None:
    heard: list[object] = []
    remove = database.on_commit(lambda topics: heard.extend(topics))
    async with database.write() as session:
        await publish(session, STREAMS)
        await publish(session, STREAMS)
        await insert_rows(session, policy("a"))
        assert heard == []
    assert heard == [STREAMS]
    with suppress(IntegrityError):
        async with database.write() as session:
            await publish(session, STREAMS)
            await insert_rows(session, policy("a"))
    assert heard == [STREAMS]
    remove()


async def test_a_lock_that_is_not_had_gives_no_broken_connection_on(database_url: str) -> None:
    """The transaction has begun when the wait for its lock fails."""
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no lock of a tenant")
    database, other = Database(database_url, connections=1), Database(database_url)
    tenant = Tenant("o", "s")
    async with database.write() as session:
        await session.execute(text("SET lock_timeout = 1"))
    async with other.write(tenant):
        with pytest.raises(DBAPIError, match="lock timeout"):
            async with database.write(tenant):
                pytest.fail("another has the lock")
    async with database.write(tenant) as session:
        await insert_rows(session, policy("a"))
    assert await stored(database) == ["a"]
    await database.dispose()
    await other.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_transaction_of_a_frozen_process_ends(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks are released, it writes nothing, and it learns that it was away when it wakes."""
    monkeypatch.setattr(writing, "ABANDONED_SECONDS", 0.2)
    tenant, begun, woken = Tenant("o", "s"), asyncio.Event(), asyncio.Event()

    async def write_frozen() -> None:
        async with database.write(tenant) as session:
            await insert_rows(session, policy("frozen"))
            begun.set()
            await woken.wait()

    frozen = asyncio.create_task(write_frozen())
    await begun.wait()
    monkeypatch.setattr(writing, "ABANDONED_SECONDS", 60.0)
    async with database.write(tenant) as session:
        await insert_rows(session, policy("other"))
    woken.set()
    with pytest.raises(OperationalError) as away:
        await frozen
    assert is_unavailable(away.value)
    assert await stored(database) == ["other"]
