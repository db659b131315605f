"""Databases: what a session sees, what it may do, and how tables come to be."""

import asyncio
import socket
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

import app.storage.tables  # noqa: F401
from app.errors import DatabaseAway, InvalidDatabaseUrl, MigrationRefused
from app.storage.columns import Row, columns
from app.storage.database import Database, connect_postgresql, end_after_silence, is_unavailable
from app.storage.migrate import NEWEST
from app.storage.tables.datasets import BatchRow, BatchStatus, DatasetKind, DatasetRow
from tests.support.cuttable import CuttableServer
from tests.support.databases import count_statements

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def dataset(id: str, **changed: Any) -> DatasetRow:
    values: dict[str, Any] = {
        "name": f"dataset {id}",
        "kind": DatasetKind.EVENT,
        "created_by": "ada",
        "created_at": NOON,
        "updated_at": NOON,
    }
    return DatasetRow(organisation="o", sandbox="prod", id=id, **{**values, **changed})


async def count(database: Database) -> int:
    async with database.session() as session:
        return (await session.execute(select(func.count()).select_from(DatasetRow))).scalar_one()


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Row.metadata))

    async with database.engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_every_key_and_index_begins_with_the_tenant() -> None:
    for table in Row.metadata.tables.values():
        if table.name == "worker":
            continue  # workers serve all tenants
        keys = [index.columns for index in table.indexes] + [table.primary_key.columns]
        for key in keys:
            if (table.name, [column.name for column in key]) == ("api_key", ["digest"]):
                continue  # a secret is what says whose key it is, so it is looked up before the tenant is known
            assert [column.name for column in key][:2] == ["organisation", "sandbox"], table.name


async def test_a_write_is_committed_at_the_end_and_undone_by_an_exception(database: Database) -> None:
    async with database.write() as session:
        session.add(dataset("1"))

    async def fail() -> None:
        async with database.write() as session:
            session.add(dataset("2"))
            await session.flush()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await fail()
    assert await count(database) == 1


async def test_instants_come_back_aware_in_utc_with_their_microseconds(database: Database) -> None:
    elsewhere = datetime(2026, 6, 15, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    async with database.write() as session:
        session.add(dataset("1", created_at=elsewhere))
        session.add(dataset("2", created_at=NOON))
    created = columns(DatasetRow).created_at
    async with database.session() as session:
        found = list(await session.scalars(select(created).order_by(created)))
        later = list(await session.scalars(select(created).where(created > NOON)))
    assert found == [NOON, elsewhere]
    assert [instant.tzinfo for instant in found] == [UTC, UTC]
    assert later == [elsewhere]


async def test_an_instant_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="has no time zone"):
        async with database.write() as session:
            session.add(dataset("1", created_at=datetime(2026, 6, 15)))  # noqa: DTZ001


async def test_names_sort_by_code_point_on_both(database: Database) -> None:
    async with database.write() as session:
        session.add_all(dataset(name, name=name) for name in ["b", "a", "B", "é", "_"])
    name = columns(DatasetRow).name
    async with database.session() as session:
        assert list(await session.scalars(select(name).order_by(name))) == ["B", "_", "a", "b", "é"]


async def test_json_comes_back_as_it_was(database: Database) -> None:
    batch = BatchRow(
        organisation="o",
        sandbox="prod",
        id="b",
        dataset_id="1",
        status=BatchStatus.ACTIVE,
        segment_ids=["é", "x"],
        row_count=2**40,
        created_by="ada",
        created_at=NOON,
    )
    async with database.write() as session:
        session.add(dataset("1"))
        await session.flush()
        session.add(batch)
    async with database.session() as session:
        row = (await session.execute(select(*columns(BatchRow)))).one()
    assert (row.segment_ids, row.row_count, row.error) == (["é", "x"], 2**40, None)


async def test_foreign_keys_hold(database: Database) -> None:
    orphan = BatchRow(
        organisation="o",
        sandbox="dev",
        id="b",
        dataset_id="1",
        status=BatchStatus.LOADING,
        created_by="ada",
        created_at=NOON,
    )
    async with database.write() as session:
        session.add(dataset("1"))
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            session.add(orphan)


async def test_a_read_session_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"):
        async with database.session() as session:
            await session.execute(insert(DatasetRow).values(dataset("1").model_dump()))
    assert await count(database) == 0


async def test_a_read_session_sees_one_state_throughout(database: Database) -> None:
    counting = select(func.count()).select_from(DatasetRow)
    async with database.session() as session:
        before = (await session.execute(counting)).scalar_one()
        async with database.write() as writing:
            writing.add(dataset("1"))
        assert [before, (await session.execute(counting)).scalar_one()] == [0, 0]
    assert await count(database) == 1


async def test_writers_take_turns_without_errors(database: Database) -> None:
    await _add(database, "0")

    async def grow() -> None:
        async with database.write() as session:
            # Read, then write: what a transaction that began as a reader could not do on SQLite.
            row = (await session.execute(select(DatasetRow).with_for_update())).scalar_one()
            await asyncio.sleep(0)
            row.row_count += 1

    await asyncio.gather(*(grow() for _ in range(20)))
    async with database.session() as session:
        assert (await session.execute(select(DatasetRow))).scalar_one().row_count == 20


async def test_statements_are_counted_without_transaction_control(database: Database) -> None:
    with count_statements(database) as statements:
        await count(database)
        await _add(database, "1")
    assert [statement.split()[0] for statement in statements] == ["SELECT", "INSERT"]


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    await _add(database, "1")
    await database.migrate()
    assert await count(database) == 1


async def test_who_finds_the_newest_form_does_not_wait_for_the_import_of_alembic(
    database: Database, database_url: str
) -> None:
    async with database.session() as session:
        assert (await session.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [NEWEST]
    script = (
        "import asyncio, sys; from app.storage.database import Database as D; "
        "asyncio.run(D(sys.argv[1]).migrate()); print('alembic' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, database_url, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output == b"False\n"


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MigrationRefused, match="migrations cannot be undone: run that version, or restore"):
        await database.migrate()


async def test_several_processes_may_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    script = (
        "import asyncio, sys; from app.storage.database import Database as D; asyncio.run(D(sys.argv[1]).migrate())"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, empty_database_url, cwd=Path(__file__).parents[2]
        )
        for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    database = Database(empty_database_url)
    await _add(database, "1")
    assert await count(database) == 1
    await database.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "'nonsense' is not a database URL: use sqlite:///path"),
        ("mysql://localhost/x", "databases of kind 'mysql' are not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(url: str, message: str) -> None:
    with pytest.raises(InvalidDatabaseUrl, match=message):
        Database(url)


async def test_a_database_that_is_away_is_told_from_a_mistake(database: Database) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseAway) as refused:
        await count(away)
    assert is_unavailable(refused.value)
    await away.dispose()
    with pytest.raises(DBAPIError) as mistaken:
        async with database.session() as session:
            await session.execute(text("SELECT * FROM no_such_table"))
    assert not is_unavailable(mistaken.value)


async def _add(database: Database, id: str) -> None:
    async with database.write() as session:
        session.add(dataset(id))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_connection_to_a_host_that_vanished_ends(database_url: str) -> None:
    """As far as one machine can show: the kernel is told to look for the other end, and when to give up."""
    async with CuttableServer.open(database_url) as server:
        connection = await connect_postgresql(server.url(urlsplit(database_url).path.lstrip("/")))
        used = connection._transport.get_extra_info("socket")
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
        known = {name: value for name, value in wanted.items() if hasattr(socket, name)}
        set_ = {name: used.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in known}
        await connection.close()
        end_after_silence(connection)  # one that has just been lost
    assert set_ == known
